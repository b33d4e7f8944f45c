"""Whether a folder holds the weights of the model that was made from it: transformers fills gaps at random."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import safe_open


def check_read(model: Any, folder: str | Path) -> None:
    """Check that the folder's files hold a tensor for every weight of a model that was loaded from it.

    Names differ between versions of transformers, so that shapes are counted. A folder without safetensors is not
    looked into.

    Raises:
        ValueError: weights that are in no file, which are random then; says how many, and of what shape.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        return
    stored: Counter[tuple[int, ...]] = Counter()
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            stored.update(tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    wanted = Counter(tuple(parameter.shape) for parameter in model.parameters())  # tied ones once
    if gone := wanted - stored:
        shape, count = gone.most_common(1)[0]
        raise ValueError(
            f"{folder} does not hold the weights that its config.json describes: {gone.total()} of {wanted.total()} "
            f"are in no file, such as {count} of shape {list(shape)}, and would be random. Take both from one "
            "checkpoint"
        )
