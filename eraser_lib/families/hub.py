"""Checkpoints of the hub at a fixed revision, and what to say where one cannot be had."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Published:
    """A published checkpoint."""

    revision: str
    """Commit on the hub."""
    gigabytes: float
    """Size of its weights, two bytes each."""


PUBLISHED = {
    "llava-hf/llava-1.5-7b-hf": Published("b234b804b114d9e37bb655e11cbbb5f5e971b7a9", 14.1),
    "Qwen/Qwen2.5-VL-7B-Instruct": Published("cc594898137f460bfe9f0759e9844b3ce807cfb5", 16.6),
}
"""The checkpoints of the paper. Any other one of the two architectures loads as well, at the revision that is asked."""
GIGABYTES = {
    **{name: published.gigabytes for name, published in PUBLISHED.items()},
    "llava-hf/llava-1.5-13b-hf": 26.7,
    "Qwen/Qwen2.5-VL-3B-Instruct": 7.5,
    "Qwen/Qwen2.5-VL-32B-Instruct": 66.9,
    "Qwen/Qwen2.5-VL-72B-Instruct": 146.8,
}
"""What there is to download."""


def revision_of(name: str, revision: str | None) -> str | None:
    """The revision to load: the one asked for, else the fixed one of a checkpoint of the paper, else the newest."""
    return revision or (PUBLISHED[name].revision if name in PUBLISHED else None)


def check_weights(folder: Path) -> None:
    """`FileNotFoundError` for a folder without weights, or without some of the files that its index names."""
    for whole in ("model.safetensors", "pytorch_model.bin"):  # in the order in which transformers looks for them
        index = folder / f"{whole}.index.json"
        if (folder / whole).is_file():
            return
        if index.is_file():
            shards = set(json.loads(index.read_text())["weight_map"].values())
            if missing := sorted(name for name in shards if not (folder / name).is_file()):
                raise FileNotFoundError(
                    f"{folder} lacks {len(missing)} of {len(shards)} files of weights, {', '.join(missing)}: the "
                    "download is not complete; run it again, it goes on where it stopped"
                )
            return
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise FileNotFoundError(
            f"{folder} holds a config.json but no weights (*.safetensors): the download is not complete; run it again"
        )


def cannot_fetch(name: str, revision: str | None, reason: Exception) -> FileNotFoundError:
    """The error for a hub checkpoint that is neither in the cache nor reachable: what to fetch, and where it goes."""
    from huggingface_hub.constants import HF_HUB_CACHE

    size = f" (about {GIGABYTES[name]:g} GB)" if name in GIGABYTES else ""
    at = f" --revision {revision}" if revision else ""
    first_line = str(reason).strip().splitlines()[0] if str(reason).strip() else type(reason).__name__
    return FileNotFoundError(
        f"{name}{f' at revision {revision}' if revision else ''} is not in the cache {HF_HUB_CACHE}, and the hub did "
        f"not give it: {first_line}\n"
        f"Where there is a network{size}:\n"
        f"    hf download {name}{at} --local-dir {name.rsplit('/', 1)[-1]}\n"
        "Then copy that folder here and pass its path; or copy it into the cache, or set HF_HOME to where the cache is."
    )
