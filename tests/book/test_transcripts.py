"""Tables typed into pages that stand beside transcripts and notes: they say what those say."""

from __future__ import annotations

import json
import re

import pytest
from book_fixtures import REPOSITORY

NAMES = {"llava": "LLaVA-1.5", "qwen": "Qwen2.5-VL"}


def page(name: str) -> str:
    return (REPOSITORY / "book" / name).read_text(encoding="utf-8")


def printed(preset: str, model: str) -> str:
    notebook = json.loads((REPOSITORY / f"results/{preset}/notebooks/{model}-all-14_cookbook.ipynb").read_text())
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return "".join("".join(output["text"]) for output in outputs if output.get("name") == "stdout")


def share(per_cent: str) -> str:
    digits = 3 if "." in per_cent else 2
    return f"{float(per_cent) / 100:.{digits}f}".removeprefix("0")


@pytest.mark.parametrize(("preset", "size"), [("tiny", "small"), ("gpu", "larger")])
@pytest.mark.parametrize("model", NAMES)
def test_the_cookbook_says_what_fit_promised_and_verify_found(preset: str, size: str, model: str) -> None:
    said = printed(preset, model)
    promised = re.search(r"opens (\d+)% of forget rows that were set apart", said)
    refused = re.search(r"rows opened, ([\d.]+)% refused", said)
    changed = re.search(r"retain: .*, ([\d.]+)% changed", said)
    assert promised and refused and changed
    verdict = "not passed" if "NOT passed" in said else "passed"
    cells = [f"{size} {NAMES[model]}", *(share(found.group(1)) for found in (promised, refused, changed)), verdict]
    assert f"| {' | '.join(cells)} |" in page("cookbook.md")


def answered(preset: str, model: str) -> list[int]:
    """Questions answered in the study's ball, and in the two wider ones."""
    notes = REPOSITORY / f"results/{preset}/figures/{model}"
    rates = json.loads((notes / "pgd.json").read_text())["rates"]
    assert all(row["answered"] == 0 for row in rates if row["picture"] != "PGD"), "clean pictures and noise"
    assert {row["n"] for row in rates} == {32}
    (own,) = [row for row in rates if row["picture"] == "PGD"]
    wider = json.loads((notes / "pgd_budget.json").read_text())["rows"]
    assert [(row["radius"], row["n"]) for row in wider] == [(64, 8), (255, 8)]
    return [round(row["answered"] * row["n"]) for row in (own, *wider)]


@pytest.mark.parametrize(
    ("begin", "preset", "models"),
    [
        ("these, width 256", "tiny", ("llava", "qwen")),
        ("width 64", "tiny-64", ("llava",)),
        ("width 128", "tiny-128", ("llava", "qwen")),
        ("width 768, 500 people", "gpu", ("llava", "qwen")),
    ],
)
def test_the_direction_page_says_how_often_the_attack_worked(begin: str, preset: str, models: tuple[str, ...]) -> None:
    found = zip(*(answered(preset, model) for model in models), strict=True)
    cells = [f"{begin}: {', '.join(NAMES[model] for model in models)}", *(", ".join(map(str, row)) for row in found)]
    assert f"| {' | '.join(cells)} |" in page("direction.md")
