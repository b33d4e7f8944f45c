"""The command `eraser` on a model that was never trained: what it prints, writes and returns."""

from __future__ import annotations

import copy
import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from benchmarks.memory import LiveBytes
from eraser_lib import Eraser, HookSite, families
from eraser_lib.bench.portraits import render, training_view
from eraser_lib.bench.records import Prompt, Question
from eraser_lib.cli import main, workshop
from eraser_lib.cli.main import app, parse_blocks
from eraser_lib.cli.rows import read_rows
from eraser_lib.experiments.gates import fit_joined
from eraser_lib.families import Loaded
from eraser_lib.families.weights import fingerprint
from eraser_lib.gate import Gate
from eraser_lib.threshold import calibrate
from eraser_lib.train.models import new_model, population
from eraser_lib.train.recipe import MICRO


@pytest.fixture(scope="module", params=["llava", "qwen"])
def loaded(request: pytest.FixtureRequest) -> Loaded:
    return new_model(request.param, MICRO)


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, Path]:
    """Two people to forget with eight rows each, and others with six."""
    people = population(MICRO).of_kind("fictitious")
    files = {}
    for name, some, each in (("forget", people[:2], 8), ("retain", people[2:], 6)):
        lines = []
        for person in some:
            render(person.genotype, training_view(person.id, 0)).save(tmp_path / f"{person.id}.png")
            for number in range(each):
                seen = number % 2 == 0
                who = "this person" if seen else person.name
                row = {"person": person.id, "question": f"Where does {who} live? {number}", "answer": "nowhere at all"}
                lines.append(json.dumps({**row, "image": f"{person.id}.png"} if seen else row))
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text("\n".join(lines))
    return files


def eraser(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def fitted(rows: dict[str, Path], out: Path, *words: object) -> Result:
    return eraser("fit", "a-model", out, "--forget", rows["forget"], "--retain", rows["retain"], *words)


def test_fit_ask_inspect_verify(
    loaded: Loaded, rows: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "load", lambda *_: loaded)
    out = tmp_path / "eraser"
    done = fitted(rows, out, "--alpha", 0.05, "--steer", "0-1", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    others = len(rows["retain"].read_text().splitlines())
    assert f"reading 16 forget and {others} retained prompts" in done.stderr
    assert report["calibration"]["alpha"] == 0.05 and 0 <= report["opened"] <= 1
    assert [row["strength"] for row in report["strengths"]] == list(workshop.STRENGTHS), (
        "nothing refuses: all are tried"
    )
    assert "warning: " in done.stderr, "said beside the JSON as well"
    saved = Eraser.from_pretrained(out, model=loaded.model)
    assert saved.rank == 2 and saved.mode == "two_pass", "one request per person"
    assert [site.layer for site in saved.sites] == [0, 1]
    assert saved.metadata["model_id"] == "a-model" and len(saved.metadata["forget"]) == 64

    asked = eraser("ask", "a-model", out, "Where does Anna live?", "--json")
    answer = json.loads(asked.stdout)
    assert answer["opened"] == (answer["value"] > answer["threshold"])
    assert answer["opened"] or answer["before"] == answer["after"]
    picture = next(tmp_path.glob("*.png"))
    assert "gate:   " in eraser("ask", "a-model", out, "Where?", "--image", picture).output

    seen = json.loads(eraser("inspect", out, "--json").stdout)
    assert seen["rank"] == 2 and seen["metadata"]["decision"]["alpha"] == 0.05
    assert "steered_sites: [" in eraser("inspect", out).output

    checked = eraser("verify", "a-model", out, "--forget", rows["forget"], "--retain", rows["retain"])
    assert checked.exit_code == 1 and "NOT passed" in checked.output, "an untrained model refuses nothing"
    assert "--forget is what fitted this eraser" in checked.stderr and "--retain is what" in checked.stderr
    assert "fitted on a-model, not on b-model" in eraser("ask", "b-model", out, "Where?").stderr
    lax = eraser(
        "verify", "a-model", out, "--forget", rows["forget"], "--retain", rows["retain"], "--refused", 0, "--changed", 1
    )
    assert lax.exit_code == 0 and "closed rows that changed: 0" in lax.output


@pytest.mark.parametrize("family", ["llava", "qwen"])
def test_the_lines_of_the_cookbook_run(
    family: str, rows: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the study's own small models, as they stand on the page."""
    page = (Path(__file__).parents[2] / "book" / "cookbook.md").read_text()
    erasing, comparing = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {"MODEL": Path(__file__).parents[2] / "checkpoints" / "tiny" / family / "vanilla"}
    exec(compile(erasing, "cookbook.md", "exec"), known)
    assert Eraser.from_pretrained(tmp_path / "my-eraser", model=known["loaded"].model).rank == 2
    exec(compile(comparing, "cookbook.md", "exec"), known)
    assert (known["done"].name, known["done"].cost.reversible) == ("npo", False)


@pytest.mark.parametrize(
    ("opened", "words", "said"),
    [
        (0.4, (), "will miss most of what it should catch; give more"),
        (0.9, (), "will mostly not make refused; give more"),
        (0.9, ("--strength", 0.01), "choose a larger --strength than 0.01, or none"),
    ],
)
def test_an_eraser_that_does_little_says_why(
    loaded: Loaded, rows: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    opened: float, words: tuple[object, ...], said: str,
) -> None:  # fmt: skip
    width = loaded.model.config.get_text_config().hidden_size
    push, gate = {HookSite(0): torch.ones(1, width)}, Gate(torch.zeros(1, width), torch.ones(1)).with_threshold(0.5)
    made = workshop.Fitted(
        Eraser(push, {HookSite(1): gate}, strength=1.0), calibrate({"retain": torch.rand(99)}, 0.05), opened, [],
        [{"strength": 1.0, "refused": 0.0}],
    )  # fmt: skip
    monkeypatch.setattr(main, "load", lambda *_: loaded)
    monkeypatch.setattr(workshop, "fit", lambda *_, **__: made)
    done = fitted(rows, tmp_path / "out", "--alpha", 0.05, "--json", *words)
    assert json.loads(done.stdout)["opened"] == opened and said in done.stderr


def test_what_verify_counts(loaded: Loaded, rows: dict[str, Path]) -> None:
    """A gate that opens for everything and a push that breaks everything, against one that never opens."""
    width = loaded.model.config.get_text_config().hidden_size
    site, gate = HookSite(0), Gate(torch.zeros(1, width), torch.ones(1))
    g = torch.Generator().manual_seed(0)
    push = {site: 100 * torch.randn(1, width, generator=g)}
    sides = [read_rows(rows[name], name) for name in ("forget", "retain")]  # type: ignore[arg-type]
    wide = workshop.verify(loaded, Eraser(push, {HookSite(1): gate.with_threshold(0.0)}), sides[0], sides[1][:10])
    assert (wide["forget_opened"], wide["retain_opened"], wide["closed_changed"]) == (1, 1, 0)
    assert wide["retain_changed"] > 0.5 and not wide["passed"]
    shut = workshop.verify(loaded, Eraser(push, {HookSite(1): gate.with_threshold(2.0)}), sides[0], sides[1][:10])
    assert (shut["forget_opened"], shut["retain_changed"], shut["closed_changed"]) == (0, 0, 0)
    assert not shut["passed"], "nothing is refused"


def test_too_few_rows_say_what_is_attainable(
    loaded: Loaded, rows: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "load", lambda *_: loaded)
    done = fitted(rows, tmp_path / "out", "--alpha", 0.001)
    assert done.exit_code == 2 and "needs 999 retained rows to calibrate on" in done.stderr
    assert "or accept --alpha 0.0" in done.stderr
    done = fitted(rows, tmp_path / "out", "--alpha", 0.05, "--decide", "40")
    assert done.exit_code == 2 and "this model has blocks 0 to" in done.stderr
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(rows["forget"].read_text().splitlines()[:3]))
    done = fitted({**rows, "forget": few}, tmp_path / "out", "--alpha", 0.05)
    assert done.exit_code == 2 and "3 forget rows are too few to set some apart" in done.stderr
    assert not (tmp_path / "out").exists(), "nothing half made is left"


def test_wrong_input_is_explained_and_nothing_is_loaded(rows: dict[str, Path], tmp_path: Path) -> None:
    done = fitted({**rows, "retain": tmp_path / "no"}, tmp_path / "out")
    assert done.exit_code == 2 and "no does not exist" in done.stderr and "Traceback" not in done.stderr
    done = fitted(rows, tmp_path / "out", "--alpha", 0.05, "--steer", "3-1")
    assert done.exit_code == 2 and "--steer is '3-1'; it must name blocks" in done.stderr
    done = fitted(rows, tmp_path / "out", "--alpha", 0.05, "--dtype", "int8")
    assert done.exit_code == 2 and "--dtype is 'int8'; it must be float32" in done.stderr
    done = fitted(rows, tmp_path / "out", "--alpha", 0.05)
    assert done.exit_code == 2 and "no checkpoint at a-model" in done.stderr
    done = fitted(rows, tmp_path / "out")
    assert done.exit_code == 2 and "needs 99 retained rows" in done.stderr and "loading" not in done.stderr
    for option, value in (("--strength", -1), ("--alpha", 1.5)):
        done = fitted(rows, tmp_path / "out", option, value)
        assert done.exit_code == 2 and f"Invalid value for '{option}'" in done.output
    assert eraser("inspect", tmp_path / "nothing").exit_code == 2
    assert eraser("ask", "a-model").exit_code == 2
    file = tmp_path / "file"
    file.write_text("")
    done = fitted(rows, file, "--alpha", 0.05)
    assert done.exit_code == 2 and "file is a file; name a folder" in done.stderr and "loading" not in done.stderr
    done = fitted(rows, file / "below" / "it", "--alpha", 0.05)
    assert done.exit_code == 2 and "file is a file; name a folder" in done.stderr and "loading" not in done.stderr
    done = fitted(rows, tmp_path / "out", "--alpha", 0.05, "--instruction", " ")
    assert done.exit_code == 2 and "--instruction is empty" in done.stderr and "loading" not in done.stderr
    done = fitted({**rows, "retain": tmp_path / "rows.csv"}, tmp_path / "out", "--alpha", 0.05)
    assert done.exit_code == 2 and "rows.csv is a table; write it as a JSON object per line" in done.stderr
    done = fitted(rows, tmp_path / "out", "--alpha", 0.05, "--device", "moon")
    assert done.exit_code == 2 and "--device moon cannot be used here" in done.stderr
    done = fitted({**rows, "retain": rows["forget"]}, tmp_path / "out", "--device", "cpu")
    assert done.exit_code == 2 and "among the rows to forget and among the retained ones" in done.stderr
    assert "loading" not in done.stderr
    made = Eraser({HookSite(0): torch.ones(1, 8)}, mode="constant")
    made.save_pretrained(tmp_path / "made")
    done = eraser("verify", "m", tmp_path / "made", "--forget", rows["forget"], "--retain", rows["forget"])
    assert done.exit_code == 2 and "among the rows to forget and" in done.stderr and "loading" not in done.stderr
    done = eraser("ask", "m", tmp_path / "made", "Who?", "--image", tmp_path / "none.png")
    assert done.exit_code == 2 and done.stderr.startswith("eraser: --image: the picture")
    for value in ("90", "-1", "nan"):
        done = eraser("verify", "m", tmp_path, "--forget", file, "--retain", file, "--refused", value)
        assert done.exit_code == 2 and "--refused" in done.output


def test_people_on_both_sides_and_rows_without_people_are_refused(
    loaded: Loaded, rows: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "load", lambda *_: loaded)
    first = rows["forget"].read_text().splitlines()[0]
    person = json.loads(first)["person"]
    rows["retain"].write_text("\n".join([*rows["retain"].read_text().splitlines(), first]))
    done = fitted(rows, tmp_path / "out", "--alpha", 0.05)
    assert done.exit_code == 2 and f"{person}: among the rows to forget and among the retained ones" in done.stderr
    rows["retain"].write_text("\n".join(rows["retain"].read_text().splitlines()[:-1]))
    rows["forget"].write_text("\n".join([*rows["forget"].read_text().splitlines(), '{"question": "Who?"}']))
    done = fitted(rows, tmp_path / "out", "--alpha", 0.05)
    assert done.exit_code == 2 and "1 of 17 forget rows name no person" in done.stderr
    with pytest.raises(ValueError, match="1 of 17 forget rows name no person"):
        workshop._check_people(read_rows(rows["forget"], "forget"), [])
    with pytest.raises(ValueError, match="a check needs rows of both sides; there are 17 to forget and 0 retained"):
        workshop.verify(
            loaded,
            Eraser({HookSite(0): torch.ones(1, 8)}, mode="constant"),
            read_rows(rows["forget"], "forget"),
            [],
        )


def test_a_prompt_on_both_sides_is_refused_though_nobody_is_named(rows: dict[str, Path], tmp_path: Path) -> None:
    nameless = {}
    for name, path in rows.items():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        nameless[name] = tmp_path / f"{name}-nameless.jsonl"
        nameless[name].write_text("\n".join(json.dumps({**line, "person": None}) for line in lines))
    # the second shows the picture of the first under another name
    shown, asked = nameless["forget"].read_text().splitlines()[:2]
    picture = json.loads(shown)["image"]
    (tmp_path / "copy.png").write_bytes((tmp_path / picture).read_bytes())
    for line in (asked, shown.replace(picture, "copy.png")):
        both = tmp_path / "both.jsonl"
        both.write_text("\n".join([*nameless["retain"].read_text().splitlines(), line]))
        done = fitted({**nameless, "retain": both}, tmp_path / "out", "--alpha", 0.05)
        assert done.exit_code == 2 and "1 retained rows ask what a row to forget asks" in done.stderr
        assert "loading" not in done.stderr


def test_copies_of_a_row_do_not_calibrate(rows: dict[str, Path], tmp_path: Path) -> None:
    """A threshold over a hundred copies of ten prompts promises nothing of an eleventh."""
    lines = rows["retain"].read_text().splitlines()
    rows["retain"].write_text("\n".join(lines * 100))
    done = fitted(rows, tmp_path / "out")
    assert done.exit_code == 2 and "needs 99 retained rows to calibrate on" in done.stderr
    retain = read_rows(rows["retain"], "retain")
    assert [row.id for row in workshop.distinct(retain)] == [f"retain/{n + 1}" for n in range(len(lines))]
    kept, *_ = workshop.divided(read_rows(rows["forget"], "forget"), retain, 0.05)
    assert sum(map(len, kept.values())) == len(lines)


def test_retained_people_are_dealt_to_parts_that_none_misses() -> None:
    """By hash alone, two of ten people would fall into no part to choose on in one of six sets of names."""
    for count in (4, 6, 10, 60):
        found = [Counter(workshop._parts(some(f"person {shift * 1000 + n}" for n in range(count))).values())
                 for shift in range(20)]  # fmt: skip
        for sizes in found:
            assert set(sizes) == {"fit", "select", "calibrate"}
            assert all(abs(sizes[name] - count * share / 6) <= 1 for name, share in workshop.SHARES.items())
    rows = [*some(["much"] * 60), *some(f"person {n}" for n in range(60))]
    sizes = Counter(workshop._parts(rows)[row.person or ""] for row in rows)
    assert (sizes["fit"], sizes["select"], sizes["calibrate"]) == (60, 20, 40), "rows are shared out, not people"


def some(people: Iterable[str]) -> list[Question]:
    return [
        Question(id=f"q{n}", subset="retain", role="fit", modality="qa", task="generation", prompt=Prompt("?"),
                 answer="", person=person)
        for n, person in enumerate(people)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (RuntimeError("shapes"), main.CRASHED, "a fault of the program, not of its input"),
        (torch.OutOfMemoryError("CUDA"), main.WRONG, "in fit and verify, read fewer prompts at a time (--batch)"),
        (MemoryError(), main.WRONG, "--dtype bfloat16"),
    ],
)
def test_a_fault_of_the_program_is_no_failed_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, code: int, said: str
) -> None:
    def raising(*_: object) -> None:
        raise fault

    monkeypatch.setattr(Eraser, "from_pretrained", raising)
    done = eraser("inspect", tmp_path)
    assert done.exit_code == code != main.FAILED and said in done.stderr


def test_a_gate_that_was_not_calibrated_is_shown(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens for nothing: its threshold is infinite, which JSON has no word for."""
    monkeypatch.setattr(main, "load", lambda *_: loaded)
    width = loaded.model.config.get_text_config().hidden_size
    gate = Gate(torch.ones(1, width), torch.zeros(1)).with_threshold(math.inf)
    Eraser({HookSite(0): torch.ones(1, width)}, {HookSite(1): gate}).save_pretrained(tmp_path / "made")
    for command in (("inspect", tmp_path / "made"), ("ask", "a-model", tmp_path / "made", "Who?")):
        assert eraser(*command).exit_code == 0
        done = eraser(*command, "--json")
        assert done.exit_code == 0 and json.loads(done.stdout)
    assert json.loads(done.stdout)["threshold"] is None
    said = eraser("ask", "a-model", tmp_path / "made", "Who?").output
    assert re.search(r"gate:   closed, \S+ without a threshold", said)


def test_an_answer_is_as_long_as_is_asked_for(loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "load", lambda *_: loaded)
    width = loaded.model.config.get_text_config().hidden_size
    Eraser({HookSite(0): torch.ones(1, width)}, mode="constant").save_pretrained(tmp_path / "made")
    answers = [
        json.loads(eraser("ask", "m", tmp_path / "made", "Who?", "--tokens", n, "--json").stdout)["before"]
        for n in (1, 8)
    ]
    assert len(answers[0]) < len(answers[1]) and answers[1].startswith(answers[0])


def test_help_needs_nothing_that_only_the_study_needs() -> None:
    code = (
        "import sys; sys.modules['pandas'] = sys.modules['pandera'] = None; from eraser_lib.cli.main import app; app()"
    )
    for words in (["--help"], ["fit", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert "eraser" in done.stdout
    words = ["fit", "m", "out", "--forget", "none.jsonl", "--retain", "none.jsonl"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == main.WRONG and "is not installed; in a clone: pip install -e '.[study]'" in done.stderr


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("owner/model@v1", "cpu", "bfloat16"), {"name": "owner/model", "revision": "v1", "dtype": torch.bfloat16}),
        (("owner/model", "auto", "float32"), {"revision": None, "spread": True, "device": "cpu", "bits": None}),
        (("owner/model", "cpu", "4bit"), {"bits": 4, "dtype": torch.bfloat16, "spread": False}),
        (("owner/model", "cpu", "8bit"), {"bits": 8, "device": "cpu"}),
        (("here@home", "cpu", "float16"), {"name": "here@home", "revision": None, "dtype": torch.float16}),
    ],
)
def test_how_a_model_is_named(
    words: tuple[str, str, str], wanted: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here@home").mkdir()  # a folder may have the sign in its name
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        families,
        "load_model",
        lambda name, **options: SimpleNamespace(name=name, model=None, processor=None, **options),
    )
    found = vars(main.load(*words))
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (json.JSONDecodeError("Expecting value", "", 0), "one of its JSON files is broken"),
        (SimpleNamespace(processor=SimpleNamespace(patch_size=None)), "its processor_config.json is missing"),
    ],
)
def test_what_a_model_lacks_is_wrong_input(found: object, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> object:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(families, "load_model", load)
    with pytest.raises(ValueError, match=said):
        main.load("a-model", "cpu", "float32")


def test_no_question_is_fitted_and_tried(rows: dict[str, Path]) -> None:
    forget = read_rows(rows["forget"], "forget")
    fitted, tried = workshop._set_apart([*forget, *forget])
    assert len(fitted) + len(tried) == 2 * len(forget) and len(tried) == len(forget) // 2
    sides = [{(row.person, row.prompt.text) for row in side} for side in (fitted, tried)]
    assert not sides[0] & sides[1]
    assert {row.person for row in tried} == {row.person for row in forget}


def test_a_folder_is_the_same_by_every_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m1").mkdir()
    Path("m2").mkdir()
    assert main._one_folder("m1", "./m1/") and main._one_folder(str(tmp_path / "m1"), "m1")
    assert not main._one_folder("m1", "m2") and not main._one_folder("owner/model", "owner/model@v1")


def test_other_weights_are_noticed_in_the_same_folder_and_the_same_ones_in_another(
    loaded: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, moved = tmp_path / "first", tmp_path / "moved"
    loaded.model.save_pretrained(first)
    push = {HookSite(0): torch.ones(1, loaded.model.config.get_text_config().hidden_size)}
    about = {"model_id": str(first), "weights": fingerprint(first)}
    Eraser(push, mode="constant", metadata=about).save_pretrained(tmp_path / "eraser", model=loaded.model)
    first.rename(moved)
    (moved / "training_args.bin").write_bytes(b"of a training")
    capsys.readouterr()
    main.attachable(tmp_path / "eraser", loaded, str(moved))
    assert capsys.readouterr().err == ""
    other = copy.deepcopy(loaded.model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.001)
    other.save_pretrained(first)
    capsys.readouterr()
    main.attachable(tmp_path / "eraser", loaded, str(first))
    assert f"the weights in {first} are not those that the eraser was fitted on" in capsys.readouterr().err


def test_a_reader_who_stops_changes_no_exit_code(tmp_path: Path) -> None:
    Eraser({HookSite(0): torch.ones(1, 8)}, mode="constant").save_pretrained(tmp_path / "eraser")
    command = f"set -o pipefail; {sys.executable} -m eraser_lib.cli inspect {tmp_path / 'eraser'} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_rows_are_known_in_another_order_and_file(rows: dict[str, Path], tmp_path: Path) -> None:
    lines = rows["forget"].read_text().splitlines()
    again = tmp_path / "again.jsonl"
    again.write_text("\n".join([*reversed(lines), lines[0]]).replace("nowhere at all", "somewhere"))
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("\n".join(lines[1:]))
    before = workshop.fingerprint(read_rows(rows["forget"], "forget"))
    assert workshop.fingerprint(read_rows(again, "forget", role="test")) == before
    assert workshop.fingerprint(read_rows(fewer, "forget")) != before
    other = read_rows(rows["forget"], "forget")
    other[0] = replace(other[0], prompt=replace(other[0].prompt, image=Image.new("RGB", (8, 8))))
    assert workshop.fingerprint(other) != before, "another picture is another row"


def test_a_gate_is_no_wider_than_its_solver_has_room_for(loaded: Loaded) -> None:
    assert (28, 29, 30, 31) not in workshop.to_try(32, 4096) and (30, 31) in workshop.to_try(32, 4096)
    assert (2, 3, 4, 5) in workshop.to_try(6, 256)
    assert all(len(layers) == 1 for layers in workshop.to_try(80, 8192)) and len(workshop.to_try(80, 20_000)) > 3
    assert all(layers[-1] >= 10 for layers in workshop.to_try(32, 4096))


def test_the_solver_of_a_gate_holds_as_many_matrices_as_is_said() -> None:
    """The room that `WIDEST` is for, and that the book states: eleven of the gate's width, in float64."""
    width, blocks, generator = 256, 2, torch.Generator().manual_seed(0)
    rows = {side: some(f"{side} {n % many}" for n in range(count)) for side, many, count in
            (("forget", 2, 10), ("retain", 20, 60))}  # fmt: skip
    read = {side: {HookSite(block): torch.randn(len(own), width, generator=generator) for block in range(blocks)}
            for side, own in rows.items()}  # fmt: skip
    with LiveBytes() as live:
        fit_joined("person:ridge_bias", read, rows, tuple(range(blocks)))
    assert 6 < live.peak / (8 * (width * blocks) ** 2) < 11


def test_blocks() -> None:
    assert parse_blocks("", "--decide") is None
    assert parse_blocks("0-2, 5,1", "--decide") == [0, 1, 2, 5]
    for text in ("x", "1-", "-1", "2-1"):
        with pytest.raises(ValueError, match="--decide is"):
            parse_blocks(text, "--decide")


def test_help_is_for_newcomers() -> None:
    done = eraser("--help")
    assert done.exit_code == 0
    for command in ("fit", "ask", "inspect", "verify"):
        assert command in done.output
        assert eraser(command, "--help").exit_code == 0
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        silent = [parameter.name for parameter in command.params if not parameter.help]
        assert command.help and not silent, f"{name} says nothing of {silent}"
