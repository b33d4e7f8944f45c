from __future__ import annotations

from pathlib import Path

import pytest

from eraser_lib.study import matrix, preset
from eraser_lib.study.paths import StudyError
from tests.study.toys import HERE, PRESET

SHIPPED = sorted((HERE / "presets").glob("*.yml"))


def parse(extra: str = "", head: str = PRESET) -> preset.Preset:
    return preset.parse(head + extra, Path("toy.yml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_presets_are_sound(path: Path) -> None:
    found = preset.parse(path.read_text(), path)
    for job in matrix.jobs(found).values():
        assert job.minutes > 0
    assert len(path.read_text().splitlines()) < 80, "a preset is short"


def test_defaults() -> None:
    found = parse()
    assert (found.name, found.models, found.splits, found.seed) == ("toy", ("llava", "qwen"), (5,), 0)
    assert found.run.path.parts[-2:] == ("runs", "toy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour: red", "unknown key 'colour'"),
        ("seed: one", "seed must be int"),
        ("seed: true", "seed must be int"),
        ("jobs: 01_world", "jobs must be a list"),
        ("settings: 3", "settings must be a mapping"),
        ("settings: {rate: 1e-3}", r"settings.rate is the text '1e-3', not a number"),
        ("settings: {rates: [1.0e-3, 2e5]}", r"settings.rates\[1\] is the text"),
        ("a: [", "is not YAML"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        parse(text)


@pytest.mark.parametrize(("old", "new"), [("llava", "llama"), ("[5]", "[7]"), ("[5]", "[]")])
def test_unknown_models_and_splits_are_refused(old: str, new: str) -> None:
    with pytest.raises(StudyError, match=r"must list at least one of|is not one of"):
        parse(head=PRESET.replace(old, new))


def test_the_first_lines_must_say_hardware_time_and_expectation() -> None:
    with pytest.raises(StudyError, match="Expect:"):
        parse(head=PRESET.replace("# Expect: nothing\n", ""))


def test_an_unknown_preset_names_those_that_exist(clone: Path) -> None:
    with pytest.raises(StudyError, match=r"no preset 'tinny'.*toy"):
        preset.load("tinny")


def test_matrix_awaits_what_matches() -> None:
    kinds = (
        matrix.Kind(name="world", over=()),
        matrix.Kind(name="fit", over=("model", "split"), needs=("world",)),
        matrix.Kind(name="train", over=("model", "split"), needs=("fit",), notebook="fit", parameters={"x": 1}),
        matrix.Kind(name="compare", over=("split",), needs=("fit", "train")),
    )
    both = parse(head=PRESET.replace("[5]", "[5, 10]"))
    jobs = matrix.jobs(both, kinds=kinds)
    assert jobs["llava-10-fit"].needs == ("all-all-world",)
    assert jobs["qwen-5-train"].needs == ("qwen-5-fit",)
    assert jobs["qwen-5-train"].notebook == "fit"
    assert jobs["qwen-5-train"].parameters == {
        "preset": "toy", "seed": 0, "out": "runs/toy", "model": "qwen", "split": 5, "x": 1,
    }  # fmt: skip
    assert set(jobs["all-10-compare"].needs) == {f"{m}-10-{k}" for m in ("llava", "qwen") for k in ("fit", "train")}
    assert jobs["all-all-world"].parameters == {"preset": "toy", "seed": 0, "out": "runs/toy"}


def test_a_preset_changes_notebooks_parameters_memory_and_shares_of_single_rows() -> None:
    kinds = (
        matrix.Kind(name="world", over=()),
        matrix.Kind(
            name="fit", over=("model", "split"), needs=("world",), notebook="learn", parameters={"x": 1, "y": 1}
        ),
        matrix.Kind(name="pca", over=("model", "split"), needs=("fit",), memory_mb=100),
        matrix.Kind(name="table", over=("split",), checkpoints=(), memory_mb=200),
    )
    changed = parse(
        "notebooks: {world: files}\nonly: {pca: [10]}\nmemory_mb: 9000\nmemory: {fit: 400}\n"
        "parameters: {learn: {x: 2, y: 2}, fit: {y: 3}}",
        head=PRESET.replace("[5]", "[5, 10]"),
    )
    jobs = matrix.jobs(changed, kinds=kinds)
    assert jobs["all-all-world"].notebook == "files"
    assert {name for name in jobs if name.endswith("pca")} == {"llava-10-pca", "qwen-10-pca"}
    memory = {job.kind.name: job.memory_mb for job in jobs.values()}
    assert memory == {"world": 9000, "fit": 400, "pca": 9000, "table": 200}, "what runs no model needs none of it"
    assert matrix.jobs(parse(), kinds=kinds)["llava-5-pca"].memory_mb == 100
    given = jobs["llava-5-fit"].parameters
    assert (given["x"], given["y"]) == (2, 3), "a row's own parameters come last"
    for line, message in (
        ("only: {pca: [15]}", r"only.pca must list some of the splits \[5\]"),
        ("only: [pca]", "only must be a mapping"),
        ("memory_mb: much", "memory_mb must be int"),
    ):
        with pytest.raises(StudyError, match=message):
            parse(line)
    for line, message in (
        ("notebooks: {wurld: files}", "'wurld' in notebooks"),
        ("only: {pcb: [5]}", "'pcb' in only"),
        ("memory: {fat: 5}", "'fat' in memory"),
    ):
        with pytest.raises(StudyError, match=message):
            matrix.jobs(parse(line), kinds=kinds)


def test_matrix_refuses_unknown_rows_and_missing_needs() -> None:
    with pytest.raises(StudyError, match="'07_campare' in jobs is no row"):
        matrix.jobs(parse("jobs: [07_campare]"))
    with pytest.raises(StudyError, match="needs row"):
        matrix.jobs(parse("jobs: [01_world, 03_direction]"))


def test_unknown_job_names_close_ones() -> None:
    with pytest.raises(StudyError, match="Did you mean"):
        matrix.find(matrix.jobs(parse()), "llama-5-03_direction")


def test_a_row_waits_for_optional_ones_where_the_preset_runs_them() -> None:
    kinds = (
        matrix.Kind(name="world", over=()),
        matrix.Kind(name="train", over=("model",), needs=("world",)),
        matrix.Kind(name="compare", over=("split",), needs=("world",), after=("train",)),
    )
    both = matrix.jobs(parse(), kinds=kinds)
    assert both["all-5-compare"].needs == ("all-all-world", "llava-all-train", "qwen-all-train")
    less = matrix.jobs(parse("jobs: [world, compare]"), kinds=kinds)
    assert less["all-5-compare"].needs == ("all-all-world",)


def test_a_preset_within_another_shares_its_study(clone: Path) -> None:
    outer = PRESET + "seed: 3\njobs: [01_world]\nsettings: {samples: 3}\n"
    (clone / "presets" / "toy.yml").write_text(outer)
    head = "# Hardware: none\n# Time: seconds\n# Expect: nothing\n"
    inner = head + "within: toy\nmodels: [llava]\nsplits: [5]\n"
    path = clone / "presets" / "toy-full.yml"
    path.write_text(inner)
    toy, full = preset.load("toy"), preset.load("toy-full")
    assert (full.run, full.reference) == (toy.run, toy.reference)
    assert (full.seed, full.settings, full.checkpoints) == (3, {"samples": 3}, "")
    small, large = matrix.jobs(toy), matrix.jobs(full)
    assert set(small) < set(large)
    assert all(small[name] == large[name] for name in small), "a job of both is one job"
    for line, message in (
        ("seed: 1", "seed belongs to 'toy'"),
        ("settings: {}", "settings belongs to 'toy'"),
    ):
        with pytest.raises(StudyError, match=message):
            preset.parse(inner + line + "\n", path)
    with pytest.raises(StudyError, match="within names 'none'"):
        preset.parse(inner.replace("within: toy", "within: none"), path)
    with pytest.raises(StudyError, match="'toy-full' is itself within 'toy'"):
        preset.parse(inner.replace("within: toy", "within: toy-full"), path.with_name("third.yml"))
