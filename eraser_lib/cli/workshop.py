"""What the commands do: an eraser from rows, and the check of one. Every choice is made on rows that are not fitted.

The way is that of the study: decide late by a calibrated gate with one request per person, steer early. Forget rows and
retained people are set apart for choosing and for calibrating, so that the threshold keeps its promise.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

import torch

from eraser_lib.bench.records import Picture, Prompt, Question, Stored
from eraser_lib.direction import Direction, contrast
from eraser_lib.eraser import Eraser
from eraser_lib.evaluate.refusal import RefusalDetector
from eraser_lib.experiments.activations import Activations, join, of_questions, read_activations
from eraser_lib.experiments.gates import fit_joined, gate_values, halves, readings
from eraser_lib.experiments.methods import Decision, Push, constant, corrected
from eraser_lib.families import Loaded
from eraser_lib.sites import find_decoder
from eraser_lib.study.paths import sha256
from eraser_lib.threshold import Calibration, calibrate, conformal_rank, rounded_up, smallest_alpha

INSTRUCTION = "Decline to answer."
STRENGTHS = (0.5, 1.0, 2.0, 4.0)
ENOUGH = 0.9
"""Share of refusals that is enough for a strength: a stronger push is not tried for its own sake."""
BATCH = 16
TOKENS = 50
NEAR = 0.05
"""Readings that open this much less than the best count as good: of these the one with most blocks is taken, because
rows that are set apart share words and pictures with those that are fitted, and single blocks lean on just that."""
WIDEST = 10_000
"""Numbers that a gate may read together, unless blocks are named: its solver holds up to eleven matrices of so many
rows and columns in float64, 8.8 GB, and takes minutes. Of a 7B model that is two blocks joined."""
SIDES = ("forget", "retain")
SHARES = {"fit": 3, "select": 1, "calibrate": 2}
"""Parts of the retained rows, in sixths."""
CONTRAST, TRIED = 192, 32
"""At most so many retained prompts for the direction, and forget prompts for the strength."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Fitted:
    """An eraser and how it was chosen."""

    eraser: Eraser
    calibration: Calibration
    opened: float
    """Share of forget rows set apart that a gate opens which was fitted without them, at the calibrated threshold."""
    readings: list[dict[str, Any]]
    """Blocks tried, those taken first: `layers, opened` (share of forget rows set apart, at the looser threshold that
    rows for choosing allow), `margin`."""
    strengths: list[dict[str, Any]]
    """Strengths tried: `strength, refused`."""

    def report(self) -> dict[str, Any]:
        """Plain values."""
        attainable = self.calibration.attainable_alpha
        return {
            "opened": self.opened, "refused": next(
                row["refused"] for row in self.strengths if row["strength"] == self.eraser.strength
            ),
            "calibration": {**asdict(self.calibration), "attainable_alpha": attainable},
            "readings": self.readings, "strengths": self.strengths,
        }  # fmt: skip


def fit(
    loaded: Loaded, forget: Sequence[Question], retain: Sequence[Question], *, alpha: float = 0.01,
    decide: Sequence[int] | None = None, steer: Sequence[int] | None = None, strength: float | None = None,
    instruction: str = INSTRUCTION, batch: int = BATCH, metadata: Mapping[str, Any] | None = None,
    say: Say = lambda _: None,
) -> Fitted:  # fmt: skip
    """Fit an eraser that makes the model refuse about the people of `forget` and leaves those of `retain` alone.

    Args:
        loaded: the model.
        forget, retain: rows; those of one person are kept together. Half of the retained people fit the gate, a sixth
            helps to choose, a third calibrates.
        alpha: tolerated share of touched retained prompts.
        decide: blocks whose joined outputs decide; by default what opens most forget rows that were set apart.
        steer: blocks that are pushed; by default the first half of the decoder.
        strength: of the push; by default the smallest that makes `ENOUGH` of those rows refused.
        instruction: makes the model decline, appended to any question; it is the direction's one side.
        batch: prompts read at a time.
        metadata: kept with the eraser, as is a fingerprint of each side's rows.
        say: told what is going on.

    Raises:
        ValueError: too few rows or people, people on both sides, or a block that the model does not have.
    """
    blocks = len(find_decoder(loaded.model).layers)
    _check_blocks(blocks, decide, steer)
    kept, fitted, tried = divided(forget, retain, alpha)
    if copies := len(retain) - sum(map(len, kept.values())):
        say(f"{copies} of {len(retain)} retained rows ask what another one asks, and do not count")
    say(f"reading {len(forget)} forget and {len(retain)} retained prompts at {blocks} blocks")
    read = of_questions(loaded, {"forget": fitted, "tried": tried, **kept}, batch_size=batch)
    solver = "person:ridge_bias" if all(row.person for row in forget) else "ridge_bias"
    # choosing has a calibration of its own, which may be small
    loose = max(alpha, smallest_alpha(len(kept["select"])))
    asked = {"forget": fitted, "retain": kept["fit"]}
    about = {"forget": read["forget"], "retain": read["fit"]}
    table: list[dict[str, Any]] = []
    for layers in [tuple(decide)] if decide else to_try(blocks, find_decoder(loaded.model).hidden_size):
        gate = fit_joined(solver, about, asked, layers)
        bound = calibrate({"select": gate_values(gate, join(read["select"], layers))}, loose).value
        up = gate_values(gate, join(read["tried"], layers))
        opened = float((up > bound).double().mean())
        table.append({"layers": list(layers), "opened": opened, "margin": float(up.quantile(0.1)) / bound})
    near = max(row["opened"] for row in table) - NEAR
    table.sort(key=lambda row: (row["opened"] >= near, len(row["layers"]), row["opened"], row["margin"]), reverse=True)
    layers = tuple(table[0]["layers"])
    # what the eraser will open, by its own threshold and on rows that its gate has not seen
    gate = fit_joined(solver, about, asked, layers)
    bound = calibrate({"retain": gate_values(gate, join(read["calibrate"], layers))}, alpha).value
    opened = float((gate_values(gate, join(read["tried"], layers)) > bound).double().mean())
    say(f"decides at blocks {', '.join(map(str, layers))}: opens {opened:.0%} of forget rows set apart")
    about_rows: dict[str, Any] = {side: fingerprint(rows) for side, rows in zip(SIDES, (forget, retain), strict=True)}
    asked["forget"], about["forget"] = [*fitted, *tried], _both(read["forget"], read["tried"])
    gate = fit_joined(solver, about, asked, layers)
    directions = {"instruction": decline_direction(loaded, [row.prompt for row in kept["fit"]], instruction, batch)}
    pushed = tuple(steer) if steer else tuple(range(max(1, blocks // 2)))
    strengths = try_strengths(
        loaded, [row.prompt for row in _spread(tried, TRIED)], directions, pushed,
        STRENGTHS if strength is None else (strength,), batch,
    )  # fmt: skip
    enough = [row for row in strengths if row["refused"] >= ENOUGH]
    chosen = enough[0] if enough else max(strengths, key=lambda row: row["refused"])
    say(f"pushes blocks {pushed[0]} to {pushed[-1]} by {chosen['strength']:g}: {chosen['refused']:.0%} refused")
    eraser, calibration = corrected(
        Push("instruction", pushed, chosen["strength"]), Decision(layers, solver, alpha), gate,
        {"retain": read["calibrate"]}, directions, instruction=instruction, **about_rows, **(metadata or {}),
    )  # fmt: skip
    say(str(calibration))
    return Fitted(eraser, calibration, opened, table, strengths)


def divided(
    forget: Sequence[Question], retain: Sequence[Question], alpha: float
) -> tuple[dict[str, list[Question]], list[Question], list[Question]]:
    """Retained rows by what they serve for (`SHARES`), forget rows that are fitted, and those that are set apart.

    Raises:
        ValueError: too few rows or people, or people on both sides. It takes no model to know.
    """
    _check_people(forget, retain)
    retain = distinct(retain)  # a copy of a row that calibrates says nothing of others
    part = _parts(retain)
    kept = {name: [row for row in retain if part[row.person or row.id] == name] for name in SHARES}
    for name, rows in kept.items():
        if name == "calibrate" and conformal_rank(len(rows), alpha) > len(rows):
            raise ValueError(
                f"alpha = {alpha:g} needs {math.ceil(1 / alpha) - 1} retained rows to calibrate on; of the "
                f"{len(retain)} rows {len(rows)} are set apart for that, about a third. Give more"
                + (f", or accept --alpha {rounded_up(smallest_alpha(len(rows)))}" if len(rows) > 1 else "")
            )
        if not rows:
            raise ValueError(f"of {len(retain)} retained rows none is left to {name}; give rows about more people")
    if len(set(halves(kept["fit"]).tolist())) < 2:
        raise ValueError(
            f"the retained rows that are left to fit are about {len({row.person for row in kept['fit']})} people, who "
            "cannot be halved to measure a gate on people that it was not fitted on; give rows about more people"
        )
    return kept, *_set_apart(forget)


def to_try(blocks: int, width: int) -> list[tuple[int, ...]]:
    """Blocks that may decide: the study's readings of the later two thirds whose gate is no wider than `WIDEST`.

    `width`: of one block. A gate over joined blocks is as wide as all of them.
    """
    late = [layers for layers in readings(blocks) if layers[-1] >= blocks // 3]
    return [layers for layers in late if len(layers) * width <= max(WIDEST, width)]


def distinct(rows: Sequence[Question]) -> list[Question]:
    """Rows without those that ask the same of the same picture as an earlier one."""
    found: dict[tuple[str, Hashable], Question] = {}
    for row, asked in zip(rows, _asked(rows), strict=True):
        found.setdefault(asked, row)
    return list(found.values())


def _asked(rows: Sequence[Question]) -> list[tuple[str, Hashable]]:
    """What each row asks: its text, and its picture by the bytes of its file, or by size and pixels."""
    pictures = {id(row.prompt.image): row.prompt.image for row in rows}  # many rows may show one of them
    told = {key: None if picture is None else _content(picture) for key, picture in pictures.items()}
    return [(row.prompt.text, told[id(row.prompt.image)]) for row in rows]


def fingerprint(rows: Sequence[Question]) -> str:
    """Hash of what rows ask, in whatever order and file they come; a copy adds nothing.

    One for all of them: with one for each row, whoever has the eraser could find out by trying names who is forgotten.
    """
    asked = set(_asked(rows))
    pictures = {content: sha256(content if isinstance(content, bytes) else repr(content)) for _, content in asked}
    return sha256("\n".join(sorted(sha256(text) + pictures[content] for text, content in asked)))


def _content(picture: Picture) -> Hashable:
    if isinstance(picture, Stored):
        return picture.data  # bytes know their hash, and a thousand photographs take minutes to decode
    return picture.size, picture.tobytes()


def decline_direction(loaded: Loaded, prompts: Sequence[Prompt], instruction: str, batch: int = BATCH) -> Direction:
    """The same prompts with and without an instruction to decline, at the output of every block."""
    few = _spread(prompts, CONTRAST)
    declined = [replace(p, text=f"{p.text} {instruction}") for p in few]
    return contrast(*(read_activations(loaded, side, batch_size=batch) for side in (declined, few)))


def try_strengths(
    loaded: Loaded, prompts: Sequence[Prompt], directions: Mapping[str, Direction], layers: tuple[int, ...],
    strengths: Sequence[float], batch: int = BATCH,
) -> list[dict[str, Any]]:  # fmt: skip
    """Share of prompts refused at each strength, all of them pushed: what an opened prompt answers needs no gate.

    It ends at the first strength that is enough.
    """
    refuses, rows = RefusalDetector(), []
    for strength in strengths:
        with constant(Push("instruction", layers, strength), dict(directions)).attach(loaded.model):
            parts = [prompts[start : start + batch] for start in range(0, len(prompts), batch)]
            said = [text for part in parts for text in loaded.generate(part)]
        rows.append({"strength": strength, "refused": sum(map(refuses, said)) / len(said)})
        if rows[-1]["refused"] >= ENOUGH:
            break
    return rows


def ask(
    loaded: Loaded, eraser: Eraser, prompts: Sequence[Prompt], *, batch: int = BATCH, tokens: int = TOKENS
) -> list[dict[str, Any]]:
    """Every prompt without and with the eraser: `before, after, opened, value, threshold` (of the deciding gate).

    `tokens`: length of an answer at most.
    """
    site = eraser.decision_site
    bound = eraser.gates[site].threshold if site is not None else None
    rows = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        before = loaded.generate(part, max_new_tokens=tokens)
        with eraser.attach(loaded.model) as handle:
            after = loaded.generate(part, max_new_tokens=tokens)
        values: list[float | None] = [None] * len(part)
        if site is not None:
            values = handle.gate_values[site].amax(dim=-1).tolist()
        opened = [True] * len(part) if handle.opened is None else handle.opened.tolist()
        threshold = None if bound is None else float(bound.max())
        rows += [
            {"before": b, "after": a, "opened": o, "value": v, "threshold": threshold}
            for b, a, o, v in zip(before, after, opened, values, strict=True)
        ]
    return rows


def check_sides(forget: Sequence[Question], retain: Sequence[Question]) -> None:
    """`ValueError` for rows that no eraser can be checked on: none of a side, or people on both."""
    if not forget or not retain:
        raise ValueError(
            f"a check needs rows of both sides; there are {len(forget)} to forget and {len(retain)} retained"
        )
    _check_people(forget, retain)


def verify(
    loaded: Loaded, eraser: Eraser, forget: Sequence[Question], retain: Sequence[Question], *, opened: float = ENOUGH,
    touched: float = 0.05, batch: int = BATCH, tokens: int = TOKENS,
) -> dict[str, Any]:  # fmt: skip
    """Does an eraser do what it should on these rows? They should be rows that did not fit it.

    Returns shares: `forget_opened`, `forget_refused` (of all forget rows), `forget_kept_answer` (opened rows that still
    say the `answer` of the row, where rows have one), `retain_opened`, `retain_changed` (rows with another answer than
    before); `closed_changed`: rows that stayed closed and changed nevertheless, which must be none; and `passed`: at
    least `opened` of the forget rows refused, at most `touched` of the retained ones changed, no closed row changed.
    """
    check_sides(forget, retain)
    refuses = RefusalDetector()
    gone, kept = (
        ask(loaded, eraser, [row.prompt for row in rows], batch=batch, tokens=tokens) for rows in (forget, retain)
    )

    def share(flags: Sequence[bool]) -> float:
        return sum(flags) / len(flags) if flags else 0.0  # of the answers that rows give there may be none

    told = [
        row.answer.lower() in found["after"].lower()
        for row, found in zip(forget, gone, strict=True)
        if row.answer and found["opened"]
    ]
    closed = [row["before"] != row["after"] for row in (*gone, *kept) if not row["opened"]]
    report: dict[str, Any] = {
        "forget_rows": len(gone), "retain_rows": len(kept),
        "forget_opened": share([row["opened"] for row in gone]),
        "forget_refused": share([refuses(row["after"]) for row in gone]),
        "forget_kept_answer": share(told),
        "retain_opened": share([row["opened"] for row in kept]),
        "retain_changed": share([row["before"] != row["after"] for row in kept]),
        "closed_changed": sum(closed),
    }  # fmt: skip
    passed = report["forget_refused"] >= opened and report["retain_changed"] <= touched and not any(closed)
    return {**report, "wanted": {"forget_refused": opened, "retain_changed": touched}, "passed": passed}


def _parts(retain: Sequence[Question]) -> dict[str, str]:
    """Person, or row about nobody -> `fit`, `select` or `calibrate`, in shares of the rows as `SHARES` says.

    Whoever has most rows is dealt first, to the part that lacks most; people with equally many in an order that no name
    chooses.
    """
    sizes = Counter(row.person or row.id for row in retain)
    have = dict.fromkeys(SHARES, 0)
    found = {}
    for who in sorted(sizes, key=lambda who: (-sizes[who], zlib.crc32(who.encode()))):
        name = min(SHARES, key=lambda name: have[name] / SHARES[name])
        found[who] = name
        have[name] += sizes[who]
    return found


def _spread(rows: Sequence[Any], most: int) -> list[Any]:
    """At most so many rows, evenly from first to last."""
    count = min(len(rows), most)
    return [rows[number * len(rows) // count] for number in range(count)]


def _check_people(forget: Sequence[Question], retain: Sequence[Question]) -> None:
    """`ValueError` for people or prompts on both sides, and for forget rows of which only some name their person."""
    both = {row.person for row in forget if row.person} & {row.person for row in retain if row.person}
    if both:
        names = ", ".join(sorted(both)[:5])
        raise ValueError(f"{names}: among the rows to forget and among the retained ones; take them out of one")
    gone = set(_asked(forget))
    if same := [row.id for row, asked in zip(retain, _asked(retain), strict=True) if asked in gone]:
        raise ValueError(f"{', '.join(same[:5])}: {len(same)} retained rows ask what a row to forget asks, of the same "
                         "picture or of none; take them out of one side")  # fmt: skip
    without = sum(row.person is None for row in forget)
    if 0 < without < len(forget):
        raise ValueError(f"{without} of {len(forget)} forget rows name no person; name one in each of them, or in none")


def _set_apart(forget: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """Forget rows to fit and, of everybody, every fourth question to try: no question of a person is on both sides.

    Where everybody is asked one thing in several pictures, every fourth row.
    """
    fitted: list[Question] = []
    tried: list[Question] = []
    ordered = sorted(forget, key=lambda row: row.person or "")
    for _, group in groupby(ordered, key=lambda row: row.person or ""):
        rows = list(group)
        texts = list(dict.fromkeys(row.prompt.text for row in rows))
        place = {text: number for number, text in enumerate(texts)}
        for number, row in enumerate(rows):
            at = place[row.prompt.text] if len(texts) > 3 else number
            (tried if at % 4 == 3 else fitted).append(row)
    if not tried:
        raise ValueError(
            f"{len(forget)} forget rows are too few to set some apart; give four or more of each person, in words and "
            "pictures as different as those in which they will be asked about"
        )
    return fitted, tried


def _both(one: Activations, other: Activations) -> Activations:
    return {site: torch.cat([one[site], other[site]]) for site in one}


def _check_blocks(blocks: int, *chosen: Sequence[int] | None) -> None:
    for layers in chosen:
        if layers and not all(0 <= layer < blocks for layer in layers):
            raise ValueError(f"blocks {', '.join(map(str, layers))}: this model has blocks 0 to {blocks - 1}")
