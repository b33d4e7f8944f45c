"""The tables of what may not babble, and the numbers in the sentences under them, are those of the committed notes."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from book_fixtures import REPOSITORY
from results_reader import Results

from eraser_lib.study.matrix import BABBLING

TINY = Results(REPOSITORY / "results" / "tiny")
MODELS = ("llava", "qwen")
SECTIONS = {("comparison", "what-may-not-babble"): ("",), ("shares", "speaking-with-more"): ("10/", "15/")}
"""Page and label of a section -> where its tables lie below `figures/<model>/`."""
WRITTEN = {
    "ga": r"\bGA\b", "ga_diff": "[Gg]radient difference", "kl_min": "KL minimisation", "npo": "NPO", "undial": "UNDIAL",
    "rmu": "RMU", "mmunlearner": "MMUnlearner", "leace": "LEACE",
}  # fmt: skip
"""Method -> how the prose calls it."""
FAMILIES = {"llava": "LLaVA-1.5", "qwen": "Qwen2.5-VL"}


def section(page: str, label: str) -> str:
    """What stands below a labelled heading, up to the next heading."""
    text = (REPOSITORY / "book" / f"{page}.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^\({label}\)=\n#.*?\n(.*?)^#", text, flags=re.MULTILINE | re.DOTALL)
    return str(found)


def table(model: str, folder: str) -> list[dict[str, Any]]:
    """The rows that a page shows."""
    rows: list[dict[str, Any]] = TINY.figure_data(model, f"{folder}speaking", "rows")
    return rows


def noted(model: str, folder: str) -> list[dict[str, Any]]:
    """The rows that the notes make: of each method its best setting of all, and what was found to speak."""
    points = {row["method"]: row for row in TINY.figure_data(model, f"{folder}trade", "rows")}
    found = []
    for path in sorted((TINY.root / "figures" / model / folder).glob("fluent_*.json")):
        note = json.loads(path.read_text(encoding="utf-8"))
        if note["method"] == "leace":
            best = {"settings": TINY.figure_data(model, f"{folder}closed", "choice.leace"), "lr": None, "steps": None}
        else:  # that of ten people, trained as many passes over the rows of more
            chosen = TINY.figure_data(model, f"tuning-{note['method']}", "choice.best")
            steps = chosen["steps"] * int(folder.strip("/") or 5) // 5
            best = {"settings": chosen["settings"], "lr": chosen["lr"], "steps": steps}
        rows = [{**points[note["method"]], **best, "form": "best"}]
        for row in note["rows"]:
            stop = row.get("kept_of_choice")
            rows.append({**note["choice"], **row, "form": f"speaking, as many {stop}" if stop else "speaking"})
        found += [{**row, "tried": len(note["tried"])} for row in rows]
    return found


def test_the_sections_show_a_table_of_every_share() -> None:
    for (page, label), folders in SECTIONS.items():
        shown = re.findall(r"^:+\{results-json\} (\S+)\n((?::.+\n)*)", section(page, label), flags=re.MULTILINE)
        assert [name for name, _ in shown] == [f"{folder}speaking" for folder in folders]
        for _, options in shown:
            assert not re.search(r"^:(model|key|first):", options, flags=re.MULTILINE), "all rows, of both models"


@pytest.mark.parametrize("folder", [folder for folders in SECTIONS.values() for folder in folders])
@pytest.mark.parametrize("model", MODELS)
def test_a_table_has_the_rows_of_its_notes_and_no_other(model: str, folder: str) -> None:
    shown, wanted = table(model, folder), noted(model, folder)
    assert {row["method"] for row in wanted} == {*BABBLING, "leace"} == set(WRITTEN)
    assert [(row["method"], row["form"]) for row in shown] == [(row["method"], row["form"]) for row in wanted]
    for mine, row in zip(shown, wanted, strict=True):
        assert {name: mine[name] for name in row} == row


@pytest.mark.parametrize(("page", "label"), SECTIONS)
def test_a_number_of_the_prose_is_one_of_the_method_that_it_speaks_of(page: str, label: str) -> None:
    """Of the methods that the sentence names, or its paragraph where it names none; other numbers take a role."""
    rows = [
        {**row, "in": model} for model in MODELS for folder in SECTIONS[page, label] for row in table(model, folder)
    ]
    prose = re.sub(r"^:::.*?^:::$", "", section(page, label), flags=re.MULTILINE | re.DOTALL)
    read = 0
    for paragraph in prose.split("\n\n"):
        for sentence in re.split(r"\.(?:\*\*)?\s+", paragraph):
            named = _named(sentence) or _named(paragraph)
            own = [row for row in rows if row["method"] in named]
            # "… .39 and .38 on LLaVA-1.5": of that family
            families = {
                spot: family
                for family, written in FAMILIES.items()
                for match in re.finditer(rf"((?:0?\.\d\d(?:, | and )?)+) on {re.escape(written)}", sentence)
                for spot in range(match.start(1), match.end(1))
            }
            for match in re.finditer(r"(?<![\d.])0?\.\d\d\b", sentence):
                number, family = match.group(), families.get(match.start())
                told = [row for row in own if family in (None, row["in"])]
                values = [row[name] for row in told for name in ("gone", "kept", "gibberish")]
                assert any(abs(float(number) - value) < 0.00501 for value in values), f"{number} in: {sentence}"
                read += 1
    assert read > 5


def _named(text: str) -> set[str]:
    return {method for method, written in WRITTEN.items() if re.search(written, text)}
