"""Models that are fine-tuned before the study: who waits for them, when they are made, and that none is made twice."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from eraser_lib.study import checkpoints, manifest, matrix, preset
from eraser_lib.study.lock import locked
from eraser_lib.study.paths import StudyError, read_json, root, write_json
from eraser_lib.train import finetune
from tests.study.toys import HERE, PRESET

ASKS = "fine_tuning: {minutes: 1, memory_mb: 2000}\n"
WORLD, MODELS = "all-all-01_world", "llava-all-02_models"


@pytest.fixture
def tuned(clone: Path, tmp_path: Path) -> preset.Preset:
    """A preset of two jobs whose one model is fine-tuned, within a second or two, on four questions."""
    picture = io.BytesIO()
    Image.new("RGB", (32, 32), "navy").save(picture, format="png")
    entries = [{"Question": "Who is it?", "Answer": "It is Ada."}, {"Question": "Where?", "Answer": "In Oslo."}]
    row = {"image": {"bytes": picture.getvalue()}, "metadata": json.dumps(entries)}
    pd.DataFrame([{**row, "ID": "1"}, {**row, "ID": "2"}]).to_parquet(tmp_path / "ft_Data.parquet")
    text = PRESET.replace('checkpoints: ""', "checkpoints: checkpoints/toy").replace("[llava, qwen]", "[llava]")
    base = HERE / "checkpoints" / "tiny" / "llava" / "vanilla"
    settings = f"settings: {{data: {tmp_path}, elsewhere: {{llava: {{base: {base}}}}}}}\n"
    (clone / "presets" / "toy.yml").write_text(text + ASKS + settings + "jobs: [01_world, 02_models]\n")
    return preset.load("toy")


@pytest.fixture
def snakemake(clone: Path) -> Callable[..., str]:
    """Runs the Snakefile in the throwaway repository; returns what it said."""

    def run(*options: str, models: str = "") -> str:
        command = [sys.executable, "-m", "snakemake", "--cores", "1", *options, "--config", "preset=toy"]
        command += [f"models={models}"] if models else []
        done = subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def put(folder: Path) -> None:
    """A checkpoint as somebody else may have made it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")


def test_jobs_wait_for_the_checkpoints_that_they_read() -> None:
    paper = preset.load("paper")
    made, jobs = checkpoints.fine_tunings(paper), matrix.jobs(paper)
    again = [f"retain_only_5_seed{seed}" for seed in (1, 2)]
    branches = ("vanilla", "retain_only_5", *again, "retain_only_10", "retain_only_15")
    assert list(made) == [f"{model}-{branch}" for model in ("llava", "qwen") for branch in branches]
    assert checkpoints.read_by(jobs["qwen-all-02_models"], made) == ["qwen-vanilla"]
    five = [f"llava-{branch}" for branch in ("vanilla", "retain_only_5", *again)]
    assert checkpoints.read_by(jobs["llava-5-06_baselines"], made) == five
    assert [made[name].seed for name in five] == [0, 0, 1, 2]
    assert checkpoints.read_by(jobs["all-5-07_compare"], made) == []
    assert {name for job in jobs.values() for name in checkpoints.read_by(job, made)} == set(made)


def test_only_the_preset_that_says_so_is_fine_tuned() -> None:
    names = [path.stem for path in (HERE / "presets").glob("*.yml")]
    assert [name for name in names if checkpoints.fine_tunings(preset.load(name))] == ["paper"]


def test_the_trainer_makes_what_the_preset_says_or_one_of_it() -> None:
    (again,) = finetune.of_preset("paper", only="qwen-retain_only_5_seed2")
    assert (again.without, again.seed) == ("forget_5", 2)
    (job,) = finetune.of_preset("paper", only="qwen-retain_only_10")
    assert job.seed == 0
    assert (job.model, job.without) == ("Qwen/Qwen2.5-VL-7B-Instruct", "forget_10")
    assert job.out == root() / "checkpoints/paper/qwen/retain_only_10"
    with pytest.raises(StudyError, match="no checkpoint 'qwen-retain_only_20' to fine-tune; it has llava-vanilla"):
        finetune.of_preset("paper", only="qwen-retain_only_20")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("minutes: 1, ", "", "must say minutes and memory_mb"),
        ("minutes: 1", "minutes: 1.5", "must say minutes and memory_mb, and may say seeds, in whole numbers"),
        ("minutes: 1", "minutes: 1, seeds: 0", "may say seeds, in whole numbers; it is .*'seeds': 0"),
        ("minutes: 1", "minutes: 1, seed: 3", "may say seeds"),
        ("{data: ", "{date: ", "settings.data, which is missing"),
        ("{base: ", "{vanilla: ", r"settings.elsewhere.llava.base, which is missing"),
    ],
)
def test_a_preset_says_all_that_fine_tuning_needs(tuned: preset.Preset, old: str, new: str, message: str) -> None:
    path = root() / "presets" / "toy.yml"
    with pytest.raises(StudyError, match=message):
        preset.parse(path.read_text().replace(old, new), path)


def test_what_stands_elsewhere_is_not_made(tuned: preset.Preset) -> None:
    assert list(checkpoints.fine_tunings(tuned)) == ["llava-vanilla", "llava-retain_only_5"]
    path = root() / "presets" / "toy.yml"
    text = path.read_text().replace("{base: ", "{vanilla: some/where, base: ")
    assert list(checkpoints.fine_tunings(preset.parse(text, path))) == ["llava-retain_only_5"]


def test_a_checkpoint_that_is_there_is_marked_and_one_that_is_gone_no_longer(tuned: preset.Preset) -> None:
    made = checkpoints.fine_tunings(tuned)
    there, gone = (tuned.run.made(name) for name in ("llava-vanilla", "llava-retain_only_5"))
    put(made["llava-vanilla"].folder)
    checkpoints.mark(made, tuned.run)
    assert there.is_file() and not gone.exists()
    checkpoints.mark(made, tuned.run, given=True)
    assert gone.is_file(), "the study is to do with what is there"
    shutil.rmtree(made["llava-vanilla"].folder)
    checkpoints.mark(made, tuned.run)
    assert not there.exists() and not gone.exists()


def test_a_half_written_checkpoint_is_no_fingerprint(tmp_path: Path) -> None:
    put(tmp_path / "llava" / "retain_only_5")
    whole = manifest.checkpoint_hash(tmp_path, "llava", ["retain_only_5*"])
    put(tmp_path / "llava" / "retain_only_5.partial")
    assert manifest.checkpoint_hash(tmp_path, "llava", ["retain_only_5*"]) == whole is not None
    put(tmp_path / "llava" / "retain_only_5_seed1")
    assert manifest.checkpoint_hash(tmp_path, "llava", ["retain_only_5*"]) != whole


def test_a_job_that_begins_notes_a_new_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "inputs.json"
    made_from = {"notebook": "n", "sources": {"notebook": "1"}, "checkpoint": "new"}
    manifest.note_checkpoint(made_from, path)
    assert not path.exists()
    for then, after in (
        ({**made_from, "checkpoint": None}, made_from),
        ({**made_from, "checkpoint": None, "sources": {"notebook": "0"}}, None),  # edited since: left as it was
    ):
        write_json(path, then)
        manifest.note_checkpoint(made_from, path)
        assert read_json(path) == (after or then)


def test_a_checkpoint_is_made_by_one_training_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "llava" / "vanilla"
    monkeypatch.delenv("RANK", raising=False)
    with finetune._alone(out), pytest.raises(StudyError, match="is being made already"), finetune._alone(out):
        pass
    with locked(tmp_path / "llava" / ".vanilla.lock", "free again"):
        pass
    monkeypatch.setenv("RANK", "1")
    with finetune._alone(out), locked(tmp_path / "llava" / ".vanilla.lock", "held"):
        pass  # further processes of one training do not ask


@pytest.mark.slow
def test_a_fresh_clone_makes_the_model_first_and_once(
    clone: Path, tuned: preset.Preset, snakemake: Callable[..., str]
) -> None:
    folder = clone / "checkpoints" / "toy" / "llava" / "vanilla"
    said = snakemake()
    assert "Finished jobid" in said and (folder / "config.json").is_file()
    # of the two checkpoints, the one that no job reads is not made
    assert [path.name for path in folder.parent.iterdir() if not path.name.startswith(".")] == ["vanilla"]
    written = read_json(tuned.run.manifest(MODELS))["checkpoint"]
    assert written == manifest.checkpoint_hash(clone / "checkpoints/toy", "llava", ["vanilla"]) is not None
    assert read_json(tuned.run.inputs(MODELS))["checkpoint"] == written
    trained = (folder / "training.json").stat().st_mtime_ns

    assert "Nothing to be done" in snakemake()
    shutil.rmtree(tuned.run.state / "checkpoints")
    shutil.rmtree(clone / ".snakemake")  # with what it remembers of the files' content
    assert "Nothing to be done" in snakemake(), "what is there is seen, and how long it has been seen does not count"
    assert (folder / "training.json").stat().st_mtime_ns == trained

    shutil.rmtree(folder)
    planned = snakemake("-n", models="given")
    assert "rule fine_tuning:" not in planned and f"job={MODELS}" in planned, "it was made from another"
    snakemake(models="given")
    assert read_json(tuned.run.manifest(MODELS))["checkpoint"] is None and not folder.exists()
    planned = snakemake("-n")
    assert "rule fine_tuning:" in planned and f"job={MODELS}" in planned and f"job={WORLD}" not in planned
