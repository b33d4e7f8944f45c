"""What a method that stands beside the model adds to a prefill and to an answer, beside the model alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from eraser_lib import Eraser
from eraser_lib.artifact import TENSORS
from eraser_lib.bench.records import Question
from eraser_lib.experiments.activations import Activations, join
from eraser_lib.experiments.contest import LATER, STEERED, note
from eraser_lib.experiments.pace import NOTE, clock, fits_of, turned
from eraser_lib.experiments.sets import test_sets
from eraser_lib.experiments.study import Study
from eraser_lib.hooks import capture
from eraser_lib.sites import HookSite

ROUNDS = 21
TOKENS = 16
"""Length of the answers that are timed."""


def passes(
    study: Study, rows: Mapping[str, Sequence[Question]], read: Mapping[str, Activations], *, rounds: int = ROUNDS
) -> pd.DataFrame:
    """A prefill, and an answer of `TOKENS` tokens, with each method that stands beside the model, ratio to the model
    alone in the same round; by one question about a retained person's picture, and by 32 about such people, at which
    gates and detector mostly stay closed.

    A method that changes weights leaves passes as they are. Columns: `method, batch`; `prefill_ratio` and
    `answer_ratio`, medians over rounds, each of which begins with another method, with the quartiles as `_low` and
    `_high`. `rows, read`: of `pace.read`.
    """
    model: Any = study.vanilla.model
    asked = test_sets(study.world, study.world_folder, study.split, size=study.sizes.test)["retain"]
    beside = {"": nullcontext, **_beside(study, rows, read)}
    length = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False}
    found = []
    for batch in (1, 32):
        inputs = study.vanilla.encode([row.prompt for row in asked[:batch]])
        prefill = partial(model, **inputs, use_cache=True, logits_to_keep=1)
        calls = {"prefill_ratio": prefill, "answer_ratio": partial(model.generate, **inputs, **length)}
        for number in range(-1, rounds):  # the first warms up and is dropped
            for method, context in turned(beside, number, rounds):
                for name, call in calls.items():
                    with torch.no_grad(), context():
                        began = clock(study)
                        call()
                        found.append((method, batch, number, name, clock(study) - began))
    times = pd.DataFrame(found, columns=["method", "batch", "round", "name", "seconds"]).query("round >= 0")
    alone = times[times["method"] == ""].drop(columns="method")
    both = times[times["method"] != ""].merge(alone, on=["batch", "round", "name"], suffixes=("", "_alone"))
    ratios = both.assign(ratio=both["seconds"] / both["seconds_alone"]).groupby(["method", "batch", "name"], sort=False)
    ends = {"": 0.5, "_low": 0.25, "_high": 0.75}
    parts = [ratios["ratio"].quantile(share).unstack("name").add_suffix(end) for end, share in ends.items()]
    return pd.concat(parts, axis=1).reset_index()


def _beside(
    study: Study, rows: Mapping[str, Sequence[Question]], read: Mapping[str, Activations]
) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """What is attached to the model, by method: the run's own erasers; LEACE and detector fitted again."""
    model = study.vanilla.model
    found: dict[str, Callable[[], AbstractContextManager[Any]]] = {}
    for method in (*STEERED, *LATER):
        if (study.artifact(method) / TENSORS).exists():
            found[method] = partial(Eraser.from_pretrained(study.artifact(method), model=model).attach, model)
    if closed := note(study, "closed"):
        fits, layers = fits_of(study), closed["choice"]["detector"]["layers"]
        found["leace"] = partial(fits["leace"](rows, read).attach, model)
        if layers:  # input embeddings would need a pass of their own
            found["detector"] = partial(judging, model, fits["detector"](rows, read), layers)
    return found


@contextmanager
def judging(model: Any, detector: Callable[[Tensor], Any], layers: Sequence[int]) -> Iterator[None]:
    """Let a detector judge the next prompts by the outputs of `layers`, in their own prefill, and nothing after it."""
    with ExitStack() as stack:
        found = stack.enter_context(capture(model, [HookSite(layer, "output") for layer in layers]))

        def judge(*_: Any) -> None:
            detector(join({site: stream.float().cpu() for site, stream in found.items()}, layers))
            stack.close()

        stack.callback(model.register_forward_hook(judge).remove)
        yield


def answering(study: Study, method: str) -> dict[str, float]:
    """`answer_ratio` of a method by `passes` to one prompt, with its quartiles; empty where it was not timed."""
    rows = [row for row in note(study, NOTE).get("passes", []) if (row["method"], row["batch"]) == (method, 1)]
    return {name: value for row in rows for name, value in row.items() if name.startswith("answer_ratio")}
