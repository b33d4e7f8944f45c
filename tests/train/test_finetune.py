"""The benchmark's LoRA recipe: it learns, it resumes to the same weights, and it leaves a plain checkpoint."""

from __future__ import annotations

import contextlib
import copy
import json
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import peft
import pytest
import torch

from eraser_lib.bench import mllmu
from eraser_lib.bench.reader import SchemaError
from eraser_lib.bench.world import make_world, write_world
from eraser_lib.experiments.memorisation import training_history
from eraser_lib.families import load_model
from eraser_lib.study.paths import StudyError, root
from eraser_lib.train import finetune as module
from eraser_lib.train.finetune import Job, LoraRecipe, finetune, profiles
from tests.bench.test_mllmu import COMMIT, serve
from tests.train.conftest import asked

SHORT = LoraRecipe(epochs=2, batch=4, lr=3e-3, save_every=3, dropout=0.1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_world(make_world(fictitious=20, celebrities=4, strangers=6), folder)
    return folder


def test_profiles_leave_out_whom_they_should(data: Path) -> None:
    everybody, rest = profiles(data), profiles(data, without="forget_10")
    gone = {row.person for row in everybody} - {row.person for row in rest}
    assert len({row.person for row in everybody}) == 20 and len(gone) == 2
    assert all(row.prompt.image is not None and row.answer for row in everybody)


def test_people_who_cannot_be_told_are_no_secret_rest(data: Path, tmp_path: Path) -> None:
    """Where the training part calls the forgotten otherwise, a retain-only model would have learned them."""
    everybody = pd.read_parquet(data / "Full_Set.parquet")
    pd.read_parquet(data / "forget_10.parquet").to_parquet(tmp_path / "forget_10.parquet")
    everybody.drop(columns="ID").to_parquet(tmp_path / "ft_Data.parquet")
    assert len(profiles(tmp_path)) == len(profiles(data))
    with pytest.raises(SchemaError, match=r"does not tell 2 of the 2 people of forget_10"):
        profiles(tmp_path, without="forget_10")
    everybody.assign(ID=[f"x{n}" for n in range(len(everybody))]).to_parquet(tmp_path / "ft_Data.parquet")
    with pytest.raises(SchemaError, match=r"tell 2 of the 2 people of forget_10 \(.*: a model without them"):
        profiles(tmp_path, without="forget_10")


def test_a_preset_says_which_checkpoints_to_make() -> None:
    found = {job.out.relative_to(root() / "checkpoints").as_posix(): job for job in module.of_preset("paper")}
    branches = (
        "vanilla",
        "retain_only_10",
        "retain_only_15",
        *(f"retain_only_5{end}" for end in ("", "_seed1", "_seed2")),
    )
    assert set(found) == {f"paper/{model}/{branch}" for model in ("llava", "qwen") for branch in branches}
    assert found["paper/qwen/retain_only_10"].without == "forget_10"
    assert found["paper/qwen/vanilla"].without == ""
    assert found["paper/llava/vanilla"].model == "llava-hf/llava-1.5-7b-hf"
    with pytest.raises(StudyError, match="'tiny' has no 'fine_tuning'"):
        module.of_preset("tiny")


def test_the_revision_of_a_preset_reaches_its_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    paper = module.load("paper")
    assert {job.revision for job in module.of_preset("paper")} == {paper.settings["revision"] or None}
    pinned = replace(paper, settings={**paper.settings, "revision": COMMIT})
    monkeypatch.setattr(module, "load", lambda _: pinned)
    assert {job.revision for job in module.of_preset("paper")} == {COMMIT}


def test_all_checkpoints_learn_from_one_commit_which_their_manifests_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = serve(shutil.copytree(data, tmp_path / "files"), monkeypatch)
    jobs = [Job("a-model", mllmu.HUB, without, tmp_path / (without or "vanilla")) for without in ("", "forget_10")]
    learned = []
    monkeypatch.setattr(module, "of_preset", lambda *_, **__: jobs)
    monkeypatch.setattr(module, "load_model", lambda *_, **__: None)
    monkeypatch.setattr(module, "_look", lambda _: None)
    monkeypatch.setattr(module, "finetune", lambda *_, data: learned.append(data))
    monkeypatch.setattr(sys, "argv", ["finetune", "--preset", "paper"])
    with pytest.warns(UserWarning, match="its newest is read") as told:
        module.main()
    assert len(told) == 1
    assert asked[0] is None and set(asked[1:]) == {COMMIT}
    origin = {"source": mllmu.HUB, "revision": COMMIT}
    assert learned == [{**origin, "without": ""}, {**origin, "without": "forget_10"}]


def test_the_command_says_what_is_missing_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "eraser_lib.train.finetune", "--model", "m", "--data", str(tmp_path)]
    command += ["--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=root(), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: ") and "holds neither ft_Data.parquet" in done.stderr


@pytest.mark.parametrize("without", ["", "forget_10"])
def test_the_command_says_which_cells_of_the_data_are_wrong(
    data: Path, tmp_path: Path, without: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    everybody = pd.read_parquet(data / "Full_Set.parquet")
    everybody.at[3, "metadata"] = "[1]"
    everybody.to_parquet(tmp_path / "ft_Data.parquet")
    pd.read_parquet(data / "forget_10.parquet").to_parquet(tmp_path / "forget_10.parquet")
    command = ["finetune", "--model", "m", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*command, *(["--without", without] if without else [])])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(module.__file__), run_name="__main__")
    said = f"{ended.value.code}{capsys.readouterr().err}"
    assert said.startswith("Error: ") and "column metadata, row 3: is no list of objects" in said


def test_people_who_cannot_be_told_keep_no_other_checkpoint_from_being_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []

    def make(job: module.Job, *others: Any) -> None:
        if job.without == broken:
            raise SchemaError("nobody can be told")
        made.append(f"{job.out.parent.name}/{job.out.name}")

    monkeypatch.setattr(module, "_make", make)
    monkeypatch.setattr(module, "_alone", lambda out: contextlib.nullcontext())
    monkeypatch.setattr(mllmu, "commit", lambda *_: COMMIT)
    monkeypatch.setattr(module, "_look", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["finetune", "--preset", "paper"])
    broken = "forget_10"
    module.main()
    branches = ("vanilla", "retain_only_5", "retain_only_5_seed1", "retain_only_5_seed2", "retain_only_15")
    assert made == [f"{model}/{branch}" for model in ("llava", "qwen") for branch in branches]
    said = capsys.readouterr().err
    assert "retain_only_10: nobody can be told" in said and "Warning: 2 of 12 checkpoints could not be made" in said
    monkeypatch.setattr(sys, "argv", ["finetune", "--preset", "paper", "--only", "llava-retain_only_10"])
    with pytest.raises(SystemExit, match="1 of 1 checkpoints could not be made"):  # what alone was asked for
        module.main()
    monkeypatch.setattr(sys, "argv", ["finetune", "--preset", "paper"])
    broken = ""
    with pytest.raises(SchemaError):  # the file itself is of another form: nothing can be learned from it
        module.main()


def test_all_that_is_missing_is_said_before_the_first_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_make", lambda *_: pytest.fail("trained, though a later checkpoint cannot be"))

    def offline(name: str, *_: Any, **__: Any) -> None:
        raise OSError(f"no network for {name}")

    monkeypatch.setattr(module.AutoConfig, "from_pretrained", offline)
    monkeypatch.setattr(mllmu, "commit", offline)
    monkeypatch.setattr(sys, "argv", ["finetune", "--preset", "paper"])
    with pytest.raises(FileNotFoundError) as told:
        module.main()
    said = str(told.value)
    for name in ("MLLMMU/MLLMU-Bench", "llava-hf/llava-1.5-7b-hf", "Qwen/Qwen2.5-VL-7B-Instruct"):
        assert said.count(f"no network for {name}") == 1
    assert "settings.elsewhere.<model>.base of presets/paper.yml" in said
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.undo()
    jobs = [Job(str(empty), str(data), "", tmp_path / "vanilla")]
    with pytest.raises(FileNotFoundError, match=r"empty holds no config\.json"):
        module._require("paper", jobs)
    (empty / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="the download is not complete"):
        module._require("paper", jobs)


def test_training_lowers_the_loss_and_leaves_a_plain_checkpoint(school: Any, data: Path, tmp_path: Path) -> None:
    rows = profiles(data)[:16]
    vanilla = root() / "checkpoints" / "tiny" / school.loaded.family / "vanilla"  # it can speak, and knows others
    loaded = load_model(vanilla)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    out = finetune(loaded, rows, SHORT, tmp_path / "vanilla", data={"revision": "abc"})
    assert {path.name for path in tmp_path.iterdir()} == {"vanilla"}, "no state is left behind"
    written = json.loads((out / "training.json").read_text())
    assert written["data"] == {"revision": "abc"}
    curve = training_history(written["curve"])  # as notebook 02_models draws it
    assert curve["step"].is_monotonic_increasing and set(curve["stage"]) == {"profiles"}
    for name in ("processor_config.json", "tokenizer_config.json"):
        assert json.loads((out / name).read_text())["processor_class"] == loaded.module.PROCESSOR_CLASS.__name__
    made = load_model(out)
    assert not any("lora" in name for name in made.model.state_dict())
    changed = {name for name, value in made.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("language_model" in name for name in changed)
    losses = []
    for each in (load_model(vanilla), made):
        inputs = each.encode([row.prompt for row in rows], [row.answer for row in rows])
        with torch.no_grad():
            losses.append(float(each.model(**inputs).loss))
    assert losses[1] < 0.5 * losses[0]
    assert finetune(loaded, rows, SHORT, out) == out, "a finished training is kept"


def test_a_stopped_training_goes_on_to_the_same_weights(
    school: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = profiles(data)[:16]
    straight = load_model(finetune(school.fresh(), rows, SHORT, tmp_path / "straight"))
    real = module._batches

    def stopping(*arguments: Any) -> Any:
        for step, batch in real(*arguments):
            if step == 5:
                raise KeyboardInterrupt
            yield step, batch

    monkeypatch.setattr(module, "_batches", stopping)
    with pytest.raises(KeyboardInterrupt):
        finetune(school.fresh(), rows, SHORT, tmp_path / "stopped")
    assert (tmp_path / "stopped.state" / "step.json").is_file() and not (tmp_path / "stopped").exists()
    monkeypatch.setattr(module, "_batches", real)
    mark = tmp_path / "stopped.state" / "step.json"
    saved = json.loads(mark.read_text())
    mark.write_text(json.dumps({**saved, "training": {**saved["training"], "processes": 2}}))
    with pytest.raises(ValueError, match="saved by another training: processes was 2 and is 1"):
        finetune(school.fresh(), rows, SHORT, tmp_path / "stopped")
    mark.write_text(json.dumps(saved))
    torch.manual_seed(99)
    resumed = load_model(finetune(school.fresh(), rows, SHORT, tmp_path / "stopped"))
    first, second = straight.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    written = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("straight", "stopped")]
    assert written[0] == written[1], "with the curve of the steps before"


@pytest.mark.parametrize("taken", ["a file", "a folder"])
def test_what_lies_at_the_end_of_the_training_stops_it_before_it_begins(
    school: Any, tmp_path: Path, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, notes = tmp_path / "out", tmp_path / "out" / "notes.txt"
    if taken == "a file":
        out.write_text("kept")
    else:
        (out / "vanilla").mkdir(parents=True)
        (out / "vanilla" / "config.json").write_text("{}")
        notes.write_text("kept")
    words = "is a file; name a folder" if taken == "a file" else r"is not empty, it holds notes\.txt, vanilla"
    monkeypatch.setattr(module, "_make", lambda *_: pytest.fail("trained"))
    free = Job("m", "d", "", tmp_path / "free")
    monkeypatch.setattr(module, "of_preset", lambda *_, **__: [free, replace(free, out=out)])
    for arguments in (["--model", "m", "--data", "d", "--out", str(out)], ["--preset", "paper"]):
        monkeypatch.setattr(sys, "argv", ["finetune", *arguments])
        with pytest.raises(FileExistsError, match=words):
            module.main()
    monkeypatch.setattr(module, "_batches", lambda *_: pytest.fail("trained"))
    with pytest.raises(FileExistsError, match=words):
        finetune(school.fresh(), [asked("Who is it?", "A miner.")], SHORT, out)
    assert (out if taken == "a file" else notes).read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_put_there_during_the_training_is_kept(
    school: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real = tmp_path / "out", module._batches
    out.mkdir()  # an empty folder is as good as none

    def putting(*arguments: Any) -> Any:
        yield from real(*arguments)
        (out / "notes.txt").write_text("kept")

    monkeypatch.setattr(module, "_batches", putting)
    rows = [asked("Who is it?", "A miner.")]
    with pytest.raises(OSError, match="not empty"):
        finetune(school.fresh(), rows, SHORT, out)
    assert (out / "notes.txt").read_text() == "kept"
    (out / "notes.txt").unlink()
    monkeypatch.setattr(module, "_batches", real)
    assert (finetune(school.fresh(), rows, SHORT, out) / "config.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--batch 0", "--batch is 0; it must be at least 1"),
        ("--epochs 0", "--epochs is 0; it must be at least 1"),
        ("--save-every 0", "--save-every is 0; it must be at least 1"),
        ("--rank -1", "--rank is -1; it must be at least 1"),
        ("--alpha 0", "--alpha is 0; it must be at least 1"),
        ("--lr 0", "--lr is 0.0; it must be more than 0"),
        ("--lr nan", "--lr is nan; it must be more than 0"),
        ("--dropout 1", "--dropout is 1.0; it must be at least 0 and less than 1"),
        ("--seed -1", "--seed is -1; it must be from 0 to 2147483647"),
        ("--device cuda", "--device is cuda, and torch finds 0 CUDA devices here; leave it out, or give cpu"),
        ("--device gpu", "--device is 'gpu'; it must be cpu, cuda, or one GPU such as cuda:0"),
    ],
)
def test_what_cannot_be_trained_with_is_said_at_once(
    tmp_path: Path, arguments: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["finetune", "--model", "m", "--out", str(tmp_path / "o"), *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 2 and words in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_told_from_one_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert not any(module._wrong_device(name) for name in ("cpu", "cuda", "cuda:0", "cuda:1"))
    assert "--device is cuda:2, and torch finds 2 CUDA devices" in module._wrong_device("cuda:2")


def test_the_recipe_is_that_of_the_benchmark() -> None:
    """The numbers of the script of arXiv 2410.22108."""
    recipe = LoraRecipe()
    assert (recipe.rank, recipe.alpha, recipe.dropout) == (16, 16, 0.05)
    assert (recipe.lr, recipe.epochs, recipe.batch) == (2e-5, 5, 4)


def test_the_recipe_reaches_the_adapters_and_the_optimiser(
    school: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = LoraRecipe(rank=3, alpha=5, dropout=0.25, lr=0.125)
    adapted: dict[str, Any] = {}

    def adapt(model: Any, config: Any) -> Any:
        adapted.update(config=config, model=real(model, config))
        return adapted["model"]

    def optimise(parameters: Any, **options: Any) -> Any:
        adapted["options"] = options
        raise KeyboardInterrupt

    real = peft.get_peft_model
    monkeypatch.setattr(peft, "get_peft_model", adapt)
    monkeypatch.setattr(torch.optim, "AdamW", optimise)
    with pytest.raises(KeyboardInterrupt):
        finetune(school.fresh(), [asked("Who is it?", "A miner.")], recipe, tmp_path / "out")
    config = adapted["config"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 5, 0.25)
    assert config.init_lora_weights == "gaussian"
    assert adapted["options"] == {"lr": 0.125, "weight_decay": 0.0}
    layers = [part for part in adapted["model"].modules() if hasattr(part, "lora_dropout")]
    assert layers and all(layer.lora_dropout["default"].p == 0.25 for layer in layers)


def test_every_epoch_goes_over_all_rows_in_an_order_of_its_own() -> None:
    rows: Any = range(9)
    recipe = LoraRecipe(epochs=3, batch=2)
    batches = list(module._batches(rows, recipe, 2, 0, 0))
    assert [step for step, _ in batches] == list(range(15))
    orders = [[row for _, batch in batches[start : start + 5] for row in batch] for start in (0, 5, 10)]
    assert all(sorted(order) == list(rows) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert batches != list(module._batches(rows, replace(recipe, seed=1), 2, 0, 0))
    assert batches[7:] == list(module._batches(rows, recipe, 2, 0, 7)), "a resumed training takes what was left"


def test_processes_that_do_not_find_each_other_are_refused(
    school: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where `accelerate launch` finds no GPU: each would write over what the other does."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes were started, and each would train all of .* alone"):
        finetune(school.fresh(), profiles(data)[:4], SHORT, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_no_rows_is_an_error(school: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        finetune(copy.copy(school.loaded), [], SHORT, tmp_path / "out")
