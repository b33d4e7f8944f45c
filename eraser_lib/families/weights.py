"""What a folder's files of weights hold: all that its model needs, and the weights that an eraser was fitted on."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors import safe_open

PLACES, PLACE = 64, 2**14
"""Of every file of weights so many stretches of so many bytes are hashed: a megabyte of it, whatever its size."""


def fingerprint(folder: str | Path) -> str | None:
    """Hash of a folder's weights from a sample of their bytes, in no time for 7B; None where it has none in files.

    Other training changes almost every byte, so that a sample tells it; a change of few single weights may escape.
    Names of files do not count, their sizes and shards do.
    """
    # what a training leaves beside them, such as training_args.bin, is none
    files = [*Path(folder).glob("*.safetensors")] or [*Path(folder).glob("pytorch_model*.bin")]
    found = []
    for file in files:
        size = file.stat().st_size
        content = hashlib.sha256(str(size).encode())
        with file.open("rb") as data:
            for number in range(PLACES):
                data.seek(number * max(0, size - PLACE) // (PLACES - 1))
                content.update(data.read(PLACE))
        found.append(content.hexdigest())
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest() if found else None


def check_read(model: Any, folder: str | Path) -> None:
    """Check that the folder's files hold a tensor for every weight of a model that was loaded from it.

    transformers fills gaps at random. Names differ between its versions, so that shapes are counted. A folder without
    safetensors is not looked into.

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
