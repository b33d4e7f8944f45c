from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path, PurePath

import pytest

from eraser_lib.study import check, confirm, manifest, matrix, preset, promote, prose, summary
from eraser_lib.study.paths import RunFolder, StudyError, sha256, write_json
from tests.study.toys import HERE, PRESET, write_run

ANSWERS = {"llava/5/vanilla/seed0": ["a", "b"]}


def complete(toy: preset.Preset, folder: RunFolder) -> RunFolder:
    """A run folder as if every job had just been run."""
    write_run(folder, ANSWERS, [{}])
    for name, job in matrix.jobs(toy).items():
        made_from = manifest.inputs(job, toy)
        manifest.write(job, toy, folder, made_from, seconds=1.0, peak_bytes=1)
        path = folder.notebook(name)
        path.parent.mkdir(exist_ok=True)
        shutil.copy(Path("notebooks") / f"{job.notebook}.ipynb", path)
    write_json(folder.manifest("summary"), summary.inputs(folder))
    return folder


@pytest.fixture
def toy(clone: Path, committed: None) -> preset.Preset:
    found = preset.load("toy")
    complete(found, found.run)
    return found


def test_a_complete_run_is_current(toy: preset.Preset) -> None:
    assert check.stale(toy, toy.run) == []


def test_staleness_names_what_changed(toy: preset.Preset, clone: Path) -> None:
    path = clone / "notebooks" / "04_gate.ipynb"
    path.write_text(path.read_text().replace("seed + 1", "seed + 2"))
    toy.run.notebook("all-5-07_compare").unlink()
    toy.run.manifest("qwen-5-05_pca").unlink()
    (toy.run.logs / "llava/5/vanilla/seed0.parquet").write_bytes(b"other")
    assert check.stale(toy, toy.run) == [
        "llava-5-04_gate: the code of notebooks/04_gate.ipynb changed",
        "qwen-5-04_gate: the code of notebooks/04_gate.ipynb changed",
        "qwen-5-05_pca: never run (no manifest)",
        "all-5-07_compare: its executed notebook is missing",
        "summary.csv: logs/llava/5/vanilla/seed0.parquet changed",
    ]


def test_a_changed_setting_makes_every_job_stale(toy: preset.Preset, clone: Path) -> None:
    (clone / "presets" / "toy.yml").write_text(PRESET + "settings: {samples: 3}\n")
    found = check.stale(preset.load("toy"), toy.run)
    assert len(found) == len(matrix.jobs(toy))
    assert all(line.endswith("the preset's settings changed") for line in found)


def test_the_reference_of_a_fresh_clone_is_current(toy: preset.Preset) -> None:
    promote.promote(toy)
    for path in toy.reference.path.rglob("*"):
        os.utime(path, (0, 0))
    assert check.stale(toy, toy.reference) == []


def test_promotion_copies_results_and_leaves_the_rest(toy: preset.Preset) -> None:
    for name in (
        "failed/x.ipynb",
        ".study/inputs/y.json",
        "reproduction.md",
        "logs/llava/5/z.parts/1.parquet",
    ):
        path = toy.run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no result")
    write_json(toy.run.adopted, {})
    old = toy.reference.path / "figures" / "old.svg"
    old.parent.mkdir(parents=True)
    old.write_text("of the reference before")
    assert promote.promote(toy)[0] == toy.reference.path
    names = {path.relative_to(toy.reference.path).as_posix() for path in toy.reference.path.rglob("*")}
    assert {"summary.csv", "logs/llava/5/vanilla/seed0.parquet", "manifests/all-5-07_compare.json"} <= names
    assert not any("failed" in n or "study" in n or "reproduction" in n or "parts" in n or "old" in n for n in names)
    assert "from_reference.json" not in names, "the reference is not taken from itself"
    assert [path.name for path in toy.reference.path.parent.iterdir()] == ["toy"]


def test_a_reference_records_the_checkpoints_that_it_is_of(clone: Path, committed: None) -> None:
    (clone / "presets" / "toy.yml").write_text(PRESET.replace('checkpoints: ""', "checkpoints: checkpoints/toy"))
    for model in ("llava", "qwen"):
        write_json(clone / "checkpoints/toy" / model / "vanilla/manifest.json", {"files": {"model.safetensors": model}})
    toy = preset.load("toy")
    complete(toy, toy.run)
    promote.promote(toy)
    shutil.rmtree(clone / "checkpoints" / "toy")
    assert sorted(path.parent.parent.name for path in toy.records.glob("*/vanilla/manifest.json")) == ["llava", "qwen"]
    assert check.stale(toy, toy.reference) == []


def test_an_incomplete_run_is_refused_and_the_reference_stays(toy: preset.Preset) -> None:
    promote.promote(toy)
    before = {path: path.stat().st_mtime for path in toy.reference.path.rglob("*")}
    toy.run.manifest("llava-5-06_erase").unlink()
    with pytest.raises(StudyError, match="llava-5-06_erase: never run"):
        promote.promote(toy)
    assert {path: path.stat().st_mtime for path in toy.reference.path.rglob("*")} == before


def test_a_job_that_ran_on_uncommitted_changes_is_refused(toy: preset.Preset) -> None:
    path = toy.run.manifest("llava-5-06_erase")
    for dirty in (True, None):  # None: git was not there to tell
        path.write_text(json.dumps(json.loads(path.read_text()) | {"git_dirty": dirty}))
        with pytest.raises(StudyError, match="llava-5-06_erase ran with changes that no commit holds"):
            promote.promote(toy)
        assert not toy.reference.path.exists()


def test_a_clone_that_git_does_not_trust_is_not_called_clean(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q"], cwd=clone, check=True)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    manifest.git_state.cache_clear()
    try:
        assert manifest.git_state() == {"git_commit": None, "git_dirty": None}
    finally:
        manifest.git_state.cache_clear()


def test_a_file_that_git_does_not_know_counts_as_a_change(clone: Path) -> None:
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=clone, check=True)
    try:
        for path, dirty in (("results/x.csv", False), ("notes.txt", False), ("eraser_lib/new.py", True)):
            (clone / path).parent.mkdir(exist_ok=True)
            (clone / path).write_text("new")
            manifest.git_state.cache_clear()
            assert manifest.git_state()["git_dirty"] is dirty, path
    finally:
        manifest.git_state.cache_clear()


def test_an_edit_while_a_job_runs_makes_it_run_again(toy: preset.Preset, clone: Path) -> None:
    """Snakemake judges by time: inputs that were read anew before a job of the old code ended must not look older."""
    jobs = matrix.jobs(toy)
    manifest.refresh_inputs(jobs, toy, toy.run)
    path = clone / "notebooks" / "04_gate.ipynb"
    path.write_text(path.read_text().replace("seed + 1", "seed + 2"))
    manifest.refresh_inputs(jobs, toy, toy.run)  # a dry run, say, while the job still runs
    done, read = toy.run.manifest("llava-5-04_gate"), toy.run.inputs("llava-5-04_gate")
    os.utime(read, (done.stat().st_mtime - 100,) * 2)
    os.utime(done, (done.stat().st_mtime - 50,) * 2)  # it ended after that, on the old code
    manifest.refresh_inputs(jobs, toy, toy.run)
    assert read.stat().st_mtime > done.stat().st_mtime
    current = toy.run.manifest("llava-5-03_direction").stat().st_mtime
    assert toy.run.inputs("llava-5-03_direction").stat().st_mtime == current


def test_a_failing_copy_leaves_the_reference_whole(toy: preset.Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    promote.promote(toy)
    before = sorted(toy.reference.path.rglob("*"))

    def fail(*arguments: object, **options: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(shutil, "copytree", fail)
    with pytest.raises(OSError, match="disk full"):
        promote.promote(toy)
    assert sorted(toy.reference.path.rglob("*")) == before


def test_adopted_logs_are_copied_recorded_and_never_replace_rerun_ones(toy: preset.Preset, clone: Path) -> None:
    answers = {**ANSWERS, "llava/5/retain_only/seed0": ["c"], "llava/5/retain_only/seed1": ["d"]}
    write_run(toy.reference, answers, [{}])
    (clone / "presets" / "toy.yml").write_text(PRESET + 'from_reference: ["logs/*/*/retain_only/*.parquet"]\n')
    found = preset.load("toy")
    rerun = found.run.logs / "llava/5/retain_only/seed1.parquet"
    rerun.parent.mkdir(parents=True)
    rerun.write_bytes(b"made by this run")
    for _ in range(2):
        assert promote.adopt(found) == ["logs/llava/5/retain_only/seed0.parquet"]
    assert rerun.read_bytes() == b"made by this run"
    name = "logs/llava/5/retain_only/seed0.parquet"
    assert json.loads(found.run.adopted.read_text()) == {name: sha256(found.reference.path / name)}
    (clone / "presets" / "toy.yml").write_text(PRESET)
    assert promote.adopt(preset.load("toy")) == []
    assert not (found.run.path / name).exists(), "a preset that makes the log itself does not find an adopted one"
    assert rerun.read_bytes() == b"made by this run"
    assert promote.adopt(found) == [name]
    (found.reference.path / name).unlink()
    assert promote.adopt(found) == []
    assert not (found.run.path / name).exists()


def test_what_was_made_here_since_it_was_adopted_stays(toy: preset.Preset, clone: Path) -> None:
    """Hours of training by `study run --job`, for which the adopted manifests were enough."""
    write_run(toy.reference, {**ANSWERS, "llava/5/ga/seed0": ["of the reference"]}, [{}])
    (clone / "presets" / "toy.yml").write_text(PRESET + 'from_reference: ["logs/*/*/ga/*.parquet"]\n')
    short, whole = preset.load("toy"), toy
    name = "logs/llava/5/ga/seed0.parquet"
    for wanting in (short, whole):
        shutil.rmtree(toy.run.logs / "llava/5/ga", ignore_errors=True)
        assert promote.adopt(short) == [name]
        (toy.run.path / name).write_bytes(b"made by hours of training")
        assert promote.adopt(wanting) == []
        assert (toy.run.path / name).read_bytes() == b"made by hours of training"


def test_a_preset_that_lacks_what_others_made_does_not_become_the_reference(toy: preset.Preset, clone: Path) -> None:
    promote.promote(toy)
    (clone / "presets" / "toy-part.yml").write_text(
        "# Hardware: none\n# Time: none\n# Expect: none\nwithin: toy\nmodels: [llava]\nsplits: [5]\njobs: [01_world]\n"
    )
    part = preset.load("toy-part")
    shutil.rmtree(part.run.path)
    complete(part, part.run)
    with pytest.raises(StudyError, match=r"lacks \d+ files of the reference, such as manifests/"):
        promote.promote(part)
    assert toy.reference.manifest("llava-5-06_erase").is_file()


def test_rows_of_answers_are_not_lost_either(toy: preset.Preset) -> None:
    promote.promote(toy)
    rows = toy.reference.path / "rows/llava/5/pooled.parquet"
    rows.parent.mkdir(parents=True)
    rows.write_text("answers")
    with pytest.raises(StudyError, match=r"lacks 1 files of the reference, such as rows/llava/5/pooled.parquet"):
        promote.promote(toy)


@pytest.mark.parametrize("name", ["tiny", "tiny-shares"])
def test_the_shipped_presets_take_all_that_they_do_not_make(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    found = preset.load(name)
    for job_name, (job, _) in confirm.relatives(found).items():
        files = [f"manifests/{job_name}.json", f"notebooks/{job_name}.ipynb"]
        files += [f"logs/{log}/seed0.parquet" for log in job.logs]
        for file in files:
            assert any(PurePath(file).match(pattern) for pattern in found.from_reference), file


def test_the_book_link_points_where_it_should(toy: preset.Preset, clone: Path) -> None:
    promote.promote(toy)
    assert promote.link(toy.reference).resolve() == toy.reference.path.resolve()
    assert promote.link(toy.run).resolve() == toy.run.path.resolve()
    assert os.readlink(clone / "book" / "run") == "../runs/toy"
    with pytest.raises(StudyError, match="nothing to show"):
        promote.link(RunFolder(clone / "runs" / "none"))
    (clone / "book" / "run").unlink()
    (clone / "book" / "run").write_text("a file")
    with pytest.raises(StudyError, match="is not a link"):
        promote.link(toy.run)


def test_edited_text_reaches_executed_notebooks_only_where_the_code_is_the_same(
    toy: preset.Preset, clone: Path
) -> None:
    first, second = clone / "notebooks" / "01_world.ipynb", clone / "notebooks" / "02_models.ipynb"
    first.write_text(first.read_text().replace("A title", "A better title"))
    second.write_text(second.read_text().replace("A title", "A better title").replace("seed + 1", "seed + 2"))
    assert prose.refresh(matrix.jobs(toy), toy.run, clone / "notebooks") == ["all-all-01_world"]
    assert "A better title" in toy.run.notebook("all-all-01_world").read_text()
    assert "A better title" not in toy.run.notebook("llava-all-02_models").read_text()
    assert prose.refresh(matrix.jobs(toy), toy.run, clone / "notebooks") == []


def test_injected_parameters_stay_behind_the_defaults() -> None:
    def cell(kind: str, source: str, *tags: str) -> dict[str, object]:
        return {"cell_type": kind, "source": source, "metadata": {"tags": list(tags)}}

    defaults, injected = cell("code", "x = 1", "parameters"), cell("code", "x = 2", "injected-parameters")
    executed = [cell("markdown", "old"), defaults, injected, cell("code", "x")]
    merged = prose.merged(executed, [defaults, cell("markdown", "new"), cell("code", "x")])
    assert merged == [defaults, injected, cell("markdown", "new"), cell("code", "x")]
    assert prose.merged(executed, [defaults, cell("code", "y")]) is None
