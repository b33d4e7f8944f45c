"""Erasers on disk: `eraser.safetensors` for the vectors, `eraser.json` for everything else. Nothing is
pickled."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .gate import Gate
from .quadratic import QuadraticGate
from .sites import HookSite, in_order

if TYPE_CHECKING:
    from .eraser import Eraser

SCHEMA = 1
"""Version of the file format; a reader refuses any that it does not know."""
CURVED = 2
"""The same with quadratic gates: what reads version 1 only would take them for linear ones, without a word."""
REQUIRED = ("tensors_sha256", "rms", "gate_sites", "steered_sites", "metadata")
"""Keys of the document beside the fields of the eraser."""

TENSORS, DOCUMENT = "eraser.safetensors", "eraser.json"
FIELDS = ("strength", "mode", "scope", "amount", "decode_strength", "decode_decay")

# What makes activations of one model mean the same in another. Names, dtypes and library versions do not.
TEXT_KEYS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
    "vocab_size", "rms_norm_eps", "hidden_act", "head_dim",
)  # fmt: skip
VISION_KEYS = ("hidden_size", "num_hidden_layers", "depth", "image_size", "patch_size", "out_hidden_size")


def config_hash(model: nn.Module) -> str:
    """SHA-256 of the parts of a model's configuration that shape its residual stream."""
    config: Any = model.config
    text, vision = config.get_text_config(), getattr(config, "vision_config", None)
    document = {
        "model_type": config.model_type,
        "text": {key: getattr(text, key, None) for key in TEXT_KEYS},
        "vision": {key: getattr(vision, key, None) for key in VISION_KEYS},
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def save(eraser: Eraser, folder: Path, model: nn.Module | None = None) -> None:
    """Write both files; the document is written last and holds the hash of the tensors."""
    from . import __version__

    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"code_version": __version__, **eraser.metadata}
    if model is not None:
        eraser.check(model)
        config: Any = model.config
        metadata = {
            "model_id": getattr(config, "_name_or_path", "") or type(model).__name__,
            "model_revision": getattr(config, "_commit_hash", None),
            **metadata,
            "config_hash": config_hash(model),
        }
    checked = _checked(metadata)  # before anything is written: what is refused leaves an older eraser whole
    tensors = {f"direction.{site}": eraser.directions[site] for site in eraser.sites}
    tensors |= {f"decode.{site}": value for site, value in (eraser.decode_directions or {}).items()}
    for site, gate in eraser.gates.items():
        tensors |= {f"gate.{site}.{name}": value for name, value in gate.tensors.items()}
    fresh = folder / f".{TENSORS}.new"
    # copies: a tensor that stands at two sites, or is a part of another, could not be written
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, fresh)
    document = {
        "schema": CURVED if any(isinstance(gate, QuadraticGate) for gate in eraser.gates.values()) else SCHEMA,
        "format": "eraser_lib",
        "hidden_size": eraser.hidden_size,
        "rank": eraser.rank,
        "steered_sites": [str(site) for site in eraser.sites],
        "gate_sites": [str(site) for site in in_order(eraser.gates)],
        "rms": {str(site): gate.rms for site, gate in eraser.gates.items()},
        "tensors_sha256": _sha256(fresh),
        **{name: getattr(eraser, name) for name in FIELDS},
        "metadata": checked,
    }
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False)
    (folder / DOCUMENT).unlink(missing_ok=True)  # never an old document beside new tensors
    fresh.replace(folder / TENSORS)
    (folder / DOCUMENT).write_text(text + "\n", encoding="utf-8")


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); copy the eraser again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__} and no object: it is not of an eraser")
    if found.get("schema") in (SCHEMA, CURVED) and (absent := [key for key in REQUIRED if key not in found]):
        raise ValueError(f"{path} lacks {', '.join(absent)}: it was changed, or not written to its end")
    return found


def load(folder: Path) -> Eraser:
    """Read both files. Raises `FileNotFoundError`, or `ValueError` for another schema or files that do not
    match."""
    from .eraser import Eraser

    for name in (DOCUMENT, TENSORS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}; expected a folder written by Eraser.save_pretrained.")
    document = _document(folder / DOCUMENT)
    if document.get("schema") not in (SCHEMA, CURVED):
        raise ValueError(
            f"{folder / DOCUMENT} has schema {document.get('schema')!r}, this version reads {SCHEMA} and {CURVED}. "
            "Save the eraser again with this version, or install the one that wrote it."
        )
    if document["tensors_sha256"] != _sha256(folder / TENSORS):
        raise ValueError(f"{folder / TENSORS} does not match the hash in {DOCUMENT}: one of the two was changed.")
    tensors = load_file(folder / TENSORS)
    gates = {HookSite.parse(site): _gate(tensors, site, rms=document["rms"][site]) for site in document["gate_sites"]}
    directions = _by_site(tensors, "direction.")
    if sorted(map(str, directions)) != sorted(document["steered_sites"]):
        raise ValueError(
            f"{folder}: the hook sites of the tensors {sorted(map(str, directions))} are not those of the "
            f"document {sorted(document['steered_sites'])}."
        )
    return Eraser(
        directions=directions,
        gates=gates,
        decode_directions=_by_site(tensors, "decode.") or None,
        metadata=document["metadata"],
        **{name: document[name] for name in FIELDS},
    )


def push(eraser: Eraser, repo_id: str, *, private: bool, token: str | None) -> str:
    """Create the repository if need be, and upload both files."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save(eraser, Path(folder))
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload eraser")
    return str(commit)


def _gate(tensors: Mapping[str, Tensor], site: str, *, rms: bool) -> Gate:
    prefix = f"gate.{site}."
    own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return (QuadraticGate if "curves" in own else Gate)(**own, rms=rms)


def _by_site(tensors: Mapping[str, Tensor], prefix: str) -> dict[HookSite, Tensor]:
    found = {HookSite.parse(name.removeprefix(prefix)): t for name, t in tensors.items() if name.startswith(prefix)}
    return {site: found[site] for site in in_order(found)}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checked(value: Any, where: str = "metadata") -> Any:
    """`value` if it survives JSON unchanged; the error names the entry that does not."""
    if isinstance(value, Mapping):
        return {str(key): _checked(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_checked(item, where) for item in value]
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{where} is {value!r}, which JSON cannot hold; use text, finite numbers, lists or dictionaries.")
