"""The fine-tuning on two processes of `accelerate launch`: it learns as one process would, and goes on after a stop."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from eraser_lib.families import load_model
from eraser_lib.study.paths import root
from eraser_lib.train import finetune as module
from eraser_lib.train.finetune import LoraRecipe, finetune, profiles
from tests.train.conftest import make
from tests.train.launched import after, renamed

pytestmark = pytest.mark.slow
FAMILIES = ("llava", "qwen")
PLAIN = LoraRecipe(epochs=2, batch=1, lr=3e-3, dropout=0.0, save_every=3)
RANDOM = replace(PLAIN, dropout=0.2)
STEPS = 6
"""Of five rows, twice: in the third step of an epoch one process has none left, and takes another's."""
ANSWERS = ("Oslo.", "Cairo.", "lizard.", "miner.", "flute.")
"""All of as many tokens, so that the mean over a batch is the mean of the means over its parts."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five people with a question each."""
    folder, rows = tmp_path_factory.mktemp("data"), []
    for number, answer in enumerate(ANSWERS):
        picture = io.BytesIO()
        Image.new("RGB", (32, 32), (50 * number, 0, 90)).save(picture, format="png")
        entry = {"Question": "What is it?", "Answer": answer}
        rows.append({"ID": f"{number}", "image": {"bytes": picture.getvalue()}, "metadata": json.dumps([entry])})
    pd.DataFrame(rows).to_parquet(folder / "ft_Data.parquet")
    return folder


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of micro models, to start from."""
    folder = tmp_path_factory.mktemp("bases")
    for family in FAMILIES:
        module._write(make(family).loaded, folder / family, {})
    return {family: folder / family for family in FAMILIES}


Launch = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def launch(data: Path, bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Starts trainings one after another on two processes; returns how that ended, and what was said."""

    def run(watched: Path, *trainings: tuple[str, LoraRecipe, Path], stop: int = 0) -> tuple[int, str]:
        watched.mkdir()
        # `--cpu` would start one process alone: this is how processes on GPUs are started
        command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
        command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command += ["--main_process_port", "0", "-m", "tests.train.launched", str(watched), str(stop)]
        for number, (family, recipe, out) in enumerate(trainings):
            command += ["--"] if number else []
            command += ["--model", str(bases[family]), "--data", str(data), "--out", str(out), "--dtype", "float32"]
            for name, value in asdict(recipe).items():
                command += [f"--{name.replace('_', '-')}", str(value)]
        variables = {
            "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
            "HF_HOME": str(tmp_path_factory.mktemp("hub")),  # where nobody configured accelerate
        }  # fmt: skip
        process = subprocess.Popen(
            command, cwd=root(), env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        try:
            said, _ = process.communicate(timeout=200)
        finally:
            process.terminate()  # it takes those along that it started
            process.wait()
        return process.returncode, said

    return run


@pytest.fixture(scope="module")
def straight(launch: Launch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what two processes made without a stop, of each family and once with dropout."""
    folder = tmp_path_factory.mktemp("straight")
    trainings = [(family, PLAIN, folder / family) for family in FAMILIES]
    code, said = launch(folder / "watched", *trainings, ("llava", RANDOM, folder / "random"))
    assert code == 0, said
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a checkpoint."""
    found: dict[str, Tensor] = load_model(folder).model.state_dict()
    return found


def same(first: Iterable[Tensor], second: Iterable[Tensor]) -> bool:
    """Whether they agree bit by bit."""
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_learn_what_one_learns_from_both_batches(
    straight: Path, bases: dict[str, Path], data: Path, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, real = profiles(data), module._batches
    loaded = load_model(bases[family])
    assert len({len(loaded.answer_ids(row.answer)) for row in rows}) == 1

    def together(rows: Any, _: LoraRecipe, share: int, process: int, begun: int) -> Iterator[tuple[int, list[Any]]]:
        first, second = (real(rows, PLAIN, share, number, begun) for number in (0, 1))
        for (step, mine), (_, others) in zip(first, second, strict=True):
            assert len(mine) == len(others) == 1
            yield step, mine + others

    monkeypatch.setattr(module, "_batches", together)
    one = weights(finetune(loaded, rows, replace(PLAIN, batch=2), tmp_path / "one"))
    two, before = weights(straight / family), weights(bases[family])
    learned, apart = (sum(float((one[n] - other[n]).square().sum()) for n in one) ** 0.5 for other in (before, two))
    assert apart < 1e-4 * learned


def test_one_checkpoint_is_written_and_both_processes_hold_the_same_weights(straight: Path, data: Path) -> None:
    watched = straight / "watched"
    for step in range(3 * STEPS):
        (rate, first), (other, second) = (after(watched, process, step + 1) for process in (0, 1))
        assert first and same(first, second)
        assert rate == other == pytest.approx(PLAIN.lr * (1 - step % STEPS / STEPS)), "it falls once a step"
    assert len(list(watched.glob("0-*.pt"))) == 3 * STEPS, "each process took half of the batches"
    names = (*FAMILIES, "random")
    assert {path.name for path in straight.iterdir() if not path.name.startswith(".")} == {"watched", *names}
    made = [(process, name) for process, name in renamed(watched) if Path(name).parent == straight]
    assert made == [(0, str(straight / end)) for name in names for end in (f"{name}.state", name)]
    for name, recipe in zip(names, (PLAIN, PLAIN, RANDOM), strict=True):
        written = json.loads((straight / name / "training.json").read_text())
        assert (written["processes"], written["rows"]) == (2, len(ANSWERS))
        assert written["recipe"] == asdict(recipe)
        assert [point["step"] for point in written["curve"]] == [0, STEPS - 1]
        assert written["data"] == {"source": str(data), "revision": None, "without": ""}


def test_a_stopped_training_of_two_processes_goes_on_to_the_same_weights(
    straight: Path, launch: Launch, tmp_path: Path
) -> None:
    """One process dies in the second epoch; the state is that of the end of the first."""
    out = tmp_path / "random"
    code, said = launch(tmp_path / "before", ("llava", RANDOM, out), stop=STEPS - 1)
    assert code != 0 and not out.exists(), said
    saved = tmp_path / "random.state"
    mark = json.loads((saved / "step.json").read_text())
    assert (mark["step"], mark["training"]["processes"]) == (3, 2)
    assert len(list(saved.glob("random_states_*"))) == 2, "each process goes on with its own random numbers"
    code, said = launch(tmp_path / "after", ("llava", RANDOM, out))
    assert code == 0, said
    assert said.count("resumes after step 3") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"before", "after", ".random.lock", "random"}
    assert same(weights(out).values(), weights(straight / "random").values())
    for process in (0, 1):
        assert len(list((tmp_path / "after").glob(f"{process}-*.pt"))) == 3, "three of six steps were left"
        _, ends = after(tmp_path / "after", process, 3)
        _, whole = after(straight / "watched", process, 3 * STEPS)
        assert same(ends, whole)
    learned, wanted = (json.loads((folder / "training.json").read_text()) for folder in (out, straight / "random"))
    assert learned == wanted, "with the curve of the steps before"
