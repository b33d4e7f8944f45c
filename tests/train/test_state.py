"""States to go on from: another training's is refused, a damaged one too, and a kill leaves a whole one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from eraser_lib.families import Loaded, load_model
from eraser_lib.train import finetune as module
from eraser_lib.train import state as states
from eraser_lib.train.finetune import LoraRecipe, finetune
from tests.train.conftest import asked, make

RECIPE = LoraRecipe(epochs=3, batch=2, lr=3e-3, dropout=0.1, save_every=2)
ROWS = [
    asked(f"Who is number {number}?", f"A {job}.") for number, job in enumerate(("miner", "baker", "pilot", "cook"))
]
DATA = {"source": "some/where", "revision": None, "without": ""}


def fresh() -> Loaded:
    return make("llava").fresh()


def until(monkeypatch: pytest.MonkeyPatch, last: int, out: Path) -> None:
    """Train `last` steps, and stop."""
    real = module._batches

    def stopping(*arguments: Any) -> Any:
        for step, batch in real(*arguments):
            if step > last:  # one batch is prepared ahead
                raise KeyboardInterrupt
            yield step, batch

    with monkeypatch.context() as patch:
        patch.setattr(module, "_batches", stopping)
        with pytest.raises(KeyboardInterrupt):
            finetune(fresh(), ROWS, RECIPE, out, data=DATA)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights of a training that nothing stopped."""
    return weights(finetune(fresh(), ROWS, RECIPE, tmp_path_factory.mktemp("straight") / "out", data=DATA))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of one that was stopped after its third step."""
    out = tmp_path_factory.mktemp("stopped") / "out"
    with pytest.MonkeyPatch.context() as monkeypatch:
        until(monkeypatch, 3, out)
    return out.with_name("out.state")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_model(folder).model.state_dict()
    return found


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def renamed(loaded: Loaded) -> None:
    loaded.model.name_or_path = "another/model"


def nudged(loaded: Loaded) -> None:
    with torch.no_grad():
        next(loaded.model.parameters()).view(-1)[0] += 1


def halved(loaded: Loaded) -> None:
    loaded.model.to(torch.bfloat16)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"lr": 1e-3}, "lr was 0.003 and is 0.001"),
        ({"epochs": 4}, "epochs was 3 and is 4"),
        ({"batch": 1}, "batch was 2 and is 1"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"rank": 8}, "rank was 16 and is 8"),
        ({"alpha": 8}, "alpha was 16 and is 8"),
        ({"dropout": 0.0}, "dropout was 0.1 and is 0.0"),
        ({"lr": 1e-3, "seed": 1}, "lr was 0.003 and is 0.001; seed was 0 and is 1"),
    ],
)
def test_a_state_of_another_recipe_is_refused(
    stopped: Path, tmp_path: Path, numbers: dict[str, Any], words: str
) -> None:
    refused(stopped, tmp_path, words, recipe=replace(RECIPE, **numbers))


@pytest.mark.parametrize(
    ("rows", "data", "words"),
    [
        (ROWS[1:], DATA, "rows was"),
        ([*ROWS[:3], replace(ROWS[3], answer="A king.")], DATA, "rows was"),
        ([*ROWS[:3], replace(ROWS[3], id="another")], DATA, "rows was"),
        (ROWS, {**DATA, "without": "forget_15"}, "data without was '' and is 'forget_15'"),
        (ROWS, {**DATA, "revision": "abc"}, "data revision was None and is 'abc'"),
        (ROWS, {"source": "some/where"}, "data revision was None and is 'not known'"),
    ],
)
def test_a_state_of_other_rows_is_refused(
    stopped: Path, tmp_path: Path, rows: Any, data: dict[str, Any], words: str
) -> None:
    refused(stopped, tmp_path, words, rows=rows, data=data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed, "base was '.*' and is 'another/model'"),
        (nudged, r"base weights was \w{8}\.\.\. and is \w{8}\.\.\.\. Start"),
        (halved, "dtype was 'torch.float32' and is 'torch.bfloat16'"),
    ],
)
def test_a_state_of_another_model_is_refused(
    stopped: Path, tmp_path: Path, change: Callable[[Loaded], None], words: str
) -> None:
    loaded = fresh()
    change(loaded)
    refused(stopped, tmp_path, words, loaded=loaded)


def test_a_published_model_is_known_by_its_revision() -> None:
    loaded = fresh()
    loaded.model.name_or_path = "llava-hf/llava-1.5-7b-hf"
    found = states.fingerprint(loaded, ROWS, {}, {}, 1)["base revision"]
    assert found == states.hub.PUBLISHED["llava-hf/llava-1.5-7b-hf"].revision


def refused(
    stopped: Path,
    folder: Path,
    words: str,
    *,
    loaded: Loaded | None = None,
    rows: Any = ROWS,
    recipe: LoraRecipe = RECIPE,
    data: dict[str, Any] = DATA,
) -> None:
    """The same training goes on, this one does not, and nothing is touched."""
    state = shutil.copytree(stopped, folder / "out.state")
    files = {path.name: path.read_bytes() for path in state.iterdir()}
    with pytest.raises(ValueError, match=words) as told:
        finetune(loaded or fresh(), rows, recipe, folder / "out", data=data)
    assert str(told.value).startswith(f"{state} was saved by another training: ")
    assert str(told.value).endswith("Start it as it was started then, or remove the folder to begin anew")
    assert [path.name for path in folder.iterdir()] == ["out.state"]
    assert files == {path.name: path.read_bytes() for path in state.iterdir()}


def test_how_often_states_are_saved_may_change(
    stopped: Path, straight: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(stopped, tmp_path / "out.state")
    out = finetune(fresh(), ROWS, replace(RECIPE, save_every=3), tmp_path / "out", data=DATA)
    assert "resumes after step 2" in capsys.readouterr().out
    assert same(weights(out), straight)


def test_a_state_holds_what_is_trained_alone(stopped: Path) -> None:
    saved = torch.load(stopped / "pytorch_model.bin")
    assert saved and all("lora_" in name for name in saved)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def altered(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def earlier(path: Path) -> None:
    path.write_text(json.dumps({"step": 2, "processes": 1, "curve": []}))


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("step.json", Path.unlink),
        ("step.json", cut),
        ("step.json", earlier),
        ("pytorch_model.bin", Path.unlink),
        ("pytorch_model.bin", cut),
        ("pytorch_model.bin", altered),
        ("optimizer.bin", cut),
        ("scheduler.bin", Path.unlink),
        ("random_states_0.pkl", Path.unlink),
        ("random_states_0.pkl", cut),
    ],
)
def test_a_damaged_state_is_refused(stopped: Path, tmp_path: Path, name: str, harm: Callable[[Path], None]) -> None:
    state = shutil.copytree(stopped, tmp_path / "out.state")
    harm(state / name)
    with pytest.raises(ValueError, match=rf"{state} is damaged, .*: {name} should be .* Remove the folder to begin"):
        finetune(fresh(), ROWS, RECIPE, tmp_path / "out", data=DATA)
    shutil.rmtree(state)
    finetune(fresh(), ROWS, replace(RECIPE, epochs=1), tmp_path / "out", data=DATA)


@pytest.mark.parametrize(("event", "step"), [(1, 2), (2, 2), (3, 2), (4, 4), (5, 4)])
def test_a_kill_at_any_moment_of_a_save_leaves_a_whole_state(
    straight: dict[str, torch.Tensor], tmp_path: Path, event: int, step: int, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The second save removes or renames five times; the process is gone before a renaming or within a removal."""
    out, count = tmp_path / "out", 0
    rename, rmtree = Path.rename, shutil.rmtree

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += (tmp_path / "out.state").exists() or count > 0
            # the first save's last removal comes after its state is in place
            if count == event + 1:
                for path in sorted(arguments[0].glob("*"))[:1] if real is rmtree else ():
                    path.unlink()
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted(rename))
        patch.setattr(states, "shutil", SimpleNamespace(rmtree=counted(rmtree)))
        with pytest.raises(KeyboardInterrupt):
            finetune(fresh(), ROWS, RECIPE, out, data=DATA)
    assert not out.exists()
    capsys.readouterr()
    assert same(weights(finetune(fresh(), ROWS, RECIPE, out, data=DATA)), straight)
    assert f"resumes after step {step}" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_state_before_is_taken_where_it_alone_is_whole(
    stopped: Path, straight: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(stopped, tmp_path / "out.state.old")
    part = shutil.copytree(stopped, tmp_path / "out.state.new")
    (part / "step.json").unlink()
    (part / "random_states_1.pkl").touch()  # of a training of more processes, which must not get into a new state
    out = finetune(fresh(), ROWS, RECIPE, tmp_path / "out", data=DATA)
    assert "resumes after step 2" in capsys.readouterr().out
    assert same(weights(out), straight)


def test_a_state_that_was_never_whole_is_none(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part = shutil.copytree(stopped, tmp_path / "out.state.new")
    (part / "step.json").unlink()
    (part / "random_states_1.pkl").touch()
    until(monkeypatch, 3, tmp_path / "out")
    assert "resumes" not in capsys.readouterr().out
    assert not part.exists() and not (tmp_path / "out.state" / "random_states_1.pkl").exists()
