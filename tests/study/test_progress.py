from __future__ import annotations

import json
from pathlib import Path

import pytest

from eraser_lib.study import matrix, preset, progress
from tests.study.toys import HERE


@pytest.fixture
def jobs(clone: Path) -> dict[str, matrix.Job]:
    """Those of the preset `tiny`, for both models."""
    names = preset.parse((HERE / "presets" / "tiny.yml").read_text(), HERE / "presets" / "tiny.yml").jobs
    return matrix.jobs(preset.load("toy"), kinds=tuple(kind for kind in matrix.KINDS if kind.name in names))


def test_estimate_starts_from_expectations_and_learns_the_speed(jobs: dict[str, matrix.Job]) -> None:
    expected = dict.fromkeys(jobs, 100.0)
    estimate = progress.Estimate(jobs, expected, cores=2)
    # eighteen jobs of 100 s on two cores; no chain is longer than that
    assert len(jobs) == 18
    assert estimate.left({}, {}) == pytest.approx(900)
    half = list(jobs)[:8]
    slow = estimate.left(dict.fromkeys(half, 200.0), {})
    assert slow == pytest.approx(500 * 1660 / 860)
    assert estimate.left(dict.fromkeys(half, 0.0), {}) == pytest.approx(500), "complete before: says nothing of speed"
    assert estimate.left(dict.fromkeys(jobs, 100.0), {}) == 0


def test_estimate_is_never_shorter_than_the_longest_chain(jobs: dict[str, matrix.Job]) -> None:
    estimate = progress.Estimate(jobs, dict.fromkeys(jobs, 100.0), cores=100)
    # world, models, direction, selection, erasing, baselines, comparison
    assert estimate.left({}, {}) == pytest.approx(700)


def test_estimate_counts_those_that_wait_for_the_gpu(jobs: dict[str, matrix.Job]) -> None:
    on_device = [name for name, job in jobs.items() if job.on_device]
    assert 0 < len(on_device) < len(jobs)
    expected = dict.fromkeys(jobs, 100.0)
    alone, shared = (progress.Estimate(jobs, expected, cores=100, on_gpu=count) for count in (1, 2))
    assert alone.left({}, {}) == pytest.approx(100 * len(on_device))
    assert shared.left({}, {}) == pytest.approx(50 * len(on_device))
    assert alone.left(dict.fromkeys(on_device, 0.0), {}) == pytest.approx(200), "world, then comparison"


def test_running_jobs_count_for_what_is_left_of_them(jobs: dict[str, matrix.Job]) -> None:
    estimate = progress.Estimate(jobs, dict.fromkeys(jobs, 100.0), cores=1)
    assert estimate.left({}, {"all-all-01_world": 60.0}) == pytest.approx(1740)
    assert estimate.left({}, {"all-all-01_world": 500.0}) == pytest.approx(1705), "overdue: nearly done"


def test_expected_seconds_come_from_the_reference_where_there_is_one(jobs: dict[str, matrix.Job]) -> None:
    reference = preset.load("toy").reference
    path = reference.manifest("all-all-01_world")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"seconds": 7.5}))
    found = progress.expected_seconds(jobs, reference)
    assert found["all-all-01_world"] == 7.5
    assert found["llava-5-06_erase"] == 60 * jobs["llava-5-06_erase"].minutes


def test_notes_go_to_the_file_that_the_runner_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "note.json"
    monkeypatch.setenv(progress.VARIABLE, str(path))
    assert list(progress.track([1, 2, 3], "counting")) == [1, 2, 3]
    assert json.loads(path.read_text()) == {"text": "counting", "done": 3, "total": 3}


def test_notes_are_silent_when_nobody_listens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(progress.VARIABLE, raising=False)
    list(progress.track(range(3), "counting"))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (89, "89 s"), (95, "2 min"), (3900, "1 h 05 min")])
def test_times_in_words(seconds: float, words: str) -> None:
    assert progress.in_words(seconds) == words
