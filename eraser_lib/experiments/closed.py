"""Baselines that train nothing: detector, LEACE, MANU. Their grids, and the choice on people erased for practice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
from torch import Tensor, stack

from eraser_lib.baselines.detector import EMBEDDING, RULES, Detector, embed
from eraser_lib.baselines.leace import Label, Leace
from eraser_lib.baselines.manu import Manu
from eraser_lib.bench import language as lang
from eraser_lib.bench.records import Question
from eraser_lib.evaluate.log import write_log
from eraser_lib.evaluate.refusal import RefusalDetector
from eraser_lib.evaluate.scores import LETTERS, score_answer
from eraser_lib.evaluate.separation import auc
from eraser_lib.experiments.activations import Activations, join
from eraser_lib.experiments.collapse import judged
from eraser_lib.experiments.gates import readings
from eraser_lib.experiments.selection import Dev
from eraser_lib.experiments.sets import calibration_sets, dev_questions, practice_people
from eraser_lib.experiments.study import Study
from eraser_lib.threshold import calibrate

REFUSAL = lang.REFUSALS[0]
"""What the detector answers in the model's place."""
NEVER = -708.0
"""Log-probability, in nats, of what a canned refusal never says: that of the smallest number a double holds."""

Reading = tuple[int, ...]
"""Blocks whose outputs are joined; none stands for the input embeddings."""


def detectors(blocks: int) -> list[tuple[Reading, str]]:
    """Readings and rules to choose from: those of the gate and the model's input embeddings, with each of `RULES`."""
    return [(reading, rule) for reading in ((), *readings(blocks)) for rule in RULES]


def scrubbers(blocks: int) -> list[Leace]:
    """Late single blocks, and runs to the last that begin at steps of a sixth of all within the first half.

    Both sets of positions. Labels: at single blocks and at all, forgotten or not and which person; at runs which person
    and which person in which kind of prompt.
    """
    single = [(layer,) for layer in range(blocks // 3, blocks)]
    runs = [tuple(range(first, blocks)) for first in range(0, blocks // 2 + 1, max(1, blocks // 6))]
    coarse: tuple[Label, ...] = ("forget", "person")
    fine: tuple[Label, ...] = ("person", "kind")
    tried = [(place, label) for place in (*single, runs[0]) for label in coarse]
    tried += [(run, label) for run in runs for label in fine]
    return [Leace(place, label, where) for place, label in dict.fromkeys(tried) for where in (False, True)]


PRUNERS = tuple(Manu(share, raw=raw) for raw in (False, True) for share in (0.05, 0.1, 0.2, 0.3, 0.4, 0.6))
"""Shares of neurons to cut, by the standardised score and by the one with sums."""


def features(activations: Activations, reading: Reading) -> Tensor:
    """What a detector sees, `(N, D)`."""
    return join(activations, reading) if reading else activations[EMBEDDING]


def with_embeddings(study: Study, sets: Mapping[str, tuple[Activations, Sequence[Question]]]) -> dict[str, Activations]:
    """Activations of sets of questions with their input embeddings beside; a question in two sets is read once."""
    rows = {(q.subset, q.id): q for _, questions in sets.values() for q in questions}
    vectors = dict(zip(rows, embed(study.vanilla, [q.prompt for q in rows.values()]), strict=True))
    return {
        name: {**read, EMBEDDING: stack([vectors[q.subset, q.id] for q in questions])}
        for name, (read, questions) in sets.items()
    }


def choose_detector(
    dev: Dev, candidates: Iterable[tuple[Reading, str]], *, alpha: float
) -> tuple[tuple[Reading, str], pd.DataFrame]:
    """The detector that opens most prompts about people erased for practice; of equal ones the larger AUC."""
    study = dev.study
    size = study.sizes.select
    groups = [study.world.population.by_id(study.world.population.dev), *practice_people(study.world, study.split)]
    where = (study.world, study.world_folder, study.split)
    calibration = calibration_sets(*where, size=study.sizes.calibrate, role="select")
    sets: dict[str, tuple[Activations, Sequence[Question]]] = {
        f"calibrate {name}": (dev.activations["calibrate"][name], rows) for name, rows in calibration.items()
    }
    sets["kept"] = (dev.activations["select"]["kept"], dev.kept)
    for number, (group, rehearsal) in enumerate(zip(groups, dev.rehearsals, strict=True)):
        unseen = dev_questions(study.world_folder, group, size=size)
        sets[f"unseen {number}"] = (rehearsal.unseen, unseen)
        for name in ("forget", "retain"):
            sets[f"{name} {number}"] = (rehearsal.fit[name], rehearsal.rows[name])
    read = with_embeddings(study, sets)
    rows = []
    for reading, rule in candidates:
        seen = {name: features(found, reading) for name, found in read.items()}
        tried = []
        for number in range(len(groups)):
            detector = RULES[rule](seen[f"forget {number}"], seen[f"retain {number}"])
            scores = {name: detector(seen[f"calibrate {name}"]) for name in calibration}
            threshold = calibrate(scores, alpha).value
            up, down = detector(seen[f"unseen {number}"]), detector(seen["kept"])
            opened, kept = float((up > threshold).double().mean()), float((down > threshold).double().mean())
            tried.append({"opened": opened, "kept_opened": kept, "auc": auc(up.numpy(), down.numpy())})
        means = pd.DataFrame(tried)
        rows.append({"layers": reading, "rule": rule, "alpha": alpha, **means.mean().to_dict(),
                     "forget_sets": len(tried), "opened_least": means["opened"].min()})  # fmt: skip
    table = pd.DataFrame(rows).sort_values(["opened", "auc"], ascending=False, ignore_index=True)
    return (table["layers"].iloc[0], str(table["rule"].iloc[0])), table


def refused(
    log: pd.DataFrame, questions: Sequence[Question], scores: Tensor, threshold: float, study: Study
) -> pd.DataFrame:
    """Vanilla's log as it is with a detector in front: rows above the threshold get the canned refusal.

    Of a refused prompt nothing else can be read: every answer has probability 0, and all options are equal.
    `log`: rows of `questions` in their order, as are the scores `(N,)`.
    """
    rows: list[dict[str, Any]] = [{str(name): value for name, value in row.items()} for row in log.to_dict("records")]
    text, judge = REFUSAL, RefusalDetector()
    tokens = len(study.vanilla.answer_ids(text)) - 1
    for row, question, score in zip(rows, questions, scores.tolist(), strict=True):
        row |= {"method": "detector", "gate_value": score, "gate_values": [score], "opened": score > threshold}
        if not row["opened"]:
            continue
        said = score_answer(question, text, detector=judge, vocabulary=study.vocabulary)
        row |= {**asdict(said), "output": text, "output_tokens": tokens, "ended": True, "reference_logprob": None}
        row |= {"answer_logprob": NEVER, "answer_prob": 0.0, "seconds": 0.0}
        if question.wrong:
            row |= {"paraphrase_logprob": NEVER, "wrong_logprobs": [NEVER] * len(question.wrong), "truth_ratio": 1.0}
        if question.options:
            equal = [-math.log(len(question.options))] * len(question.options)
            row |= {"option_logprobs": equal, "forced": LETTERS[0], "forced_correct": question.letter == LETTERS[0]}
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object) for name in log.columns})


def detect(
    study: Study, vanilla: pd.DataFrame, questions: Sequence[Question], detector: Detector, seen: Tensor,
    calibration: Mapping[str, Tensor], alpha: float,
) -> pd.DataFrame:  # fmt: skip
    """Calibrate a detector, write its log and return it. `seen`: features of `questions`; `calibration`: by group.

    Raises:
        ValueError: `vanilla` is not the log of these questions.
    """
    if vanilla["id"].tolist() != [question.id for question in questions]:
        raise ValueError("vanilla's log holds other questions than these; run notebook 06_erase again")
    threshold = calibrate({name: detector(rows) for name, rows in calibration.items()}, alpha).value
    log = refused(vanilla, questions, detector(seen), threshold, study)
    write_log(study.log_path("detector"), log)
    return log


def choose_scrubber(dev: Dev, candidates: Sequence[Leace]) -> tuple[Leace, pd.DataFrame]:
    """The LEACE map with the best selection score on the dev people."""
    fit, rows = dev.rehearsals[0].fit, []
    for candidate in candidates:
        people = names(dev.fit["forget"], candidate.label)
        score = dev.score(context=dev.attach(candidate.fit(fit["forget"], fit["retain"], people)))
        rows.append({"settings": str(candidate), **judged(score)})
    return _best(candidates, rows)


def choose_pruner(dev: Dev, candidates: Sequence[Manu]) -> tuple[Manu, pd.DataFrame]:
    """The share of neurons, and the score, with the best selection score on the dev people."""
    rows = []
    measured = candidates[0].measure(dev.study.vanilla, dev.fit["forget"], dev.fit["retain"])
    for candidate in candidates:
        pruned = candidate.cut(dev.study.vanilla, measured)
        rows.append({"settings": str(candidate), **judged(dev.score(loaded=pruned.loaded))})
    return _best(candidates, rows)


def names(rows: Sequence[Question], label: str = "person") -> list[str]:
    """Who is asked about, one per row; for the label `kind` of `Leace` with the modality of the prompt."""
    return [f"{row.person}, {row.modality}" if label == "kind" else row.person or "" for row in rows]


def _best(candidates: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> tuple[Any, pd.DataFrame]:
    best = max(range(len(rows)), key=lambda number: rows[number]["score"])
    table = pd.DataFrame(list(rows)).sort_values("score", ascending=False, kind="stable", ignore_index=True)
    return candidates[best], table
