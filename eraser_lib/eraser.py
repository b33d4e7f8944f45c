"""The eraser: frozen data that says what is read, what is decided and what is added."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from . import artifact
from .gate import Gate
from .sites import HookSite, find_decoder, in_order
from .steering import Steering

Mode = Literal["two_pass", "gated", "constant", "published"]
Scope = Literal["last", "prompt", "text", "image", "prompt+generation"]
Amount = Literal["constant", "gate"]


@dataclass(frozen=True, eq=False)
class Eraser:
    """One or several erasure requests for one model.

    Modes:

    - `two_pass` (decide late, steer early; the corrected default): one prefill reads the gate at the decision
      site; when the gate of a row opens, the pass is given up and repeated with that row steered from the
      first steered site on. Rows that stay closed are bit-identical to the unsteered model. Gates at several
      sites are one gate on their joined streams: the readings add up, and the last site decides.
    - `gated`: one pass; each steered site reads its own gate at the last prompt token (or all use the one
      gate of an earlier site) and adds `amount * direction`.
    - `constant`: one pass without a gate, every prompt is pushed; the ablation that shows what the gate buys.
    - `published`: what the authors' code does. At every steered site the gate is read at the last prompt
      token and `gate * direction` is added to every position, whenever the sequence is longer than one token.
    """

    directions: Mapping[HookSite, Tensor]
    """What is added, per steered site, shape `(k, d)`; `k` is the number of requests."""

    gates: Mapping[HookSite, Gate] = field(default_factory=dict)
    """What is read; none in `constant` mode. In `two_pass` mode the threshold belongs to the last site."""

    strength: float = 1.0
    """Factor of every patch; positive pushes towards erasure."""

    mode: Mode = "two_pass"
    """See above."""

    scope: Scope = "prompt"
    """Patched positions: the last prompt token, all prompt positions, those of text, those of images, or all
    prompt positions and every generated token. `published` mode ignores it."""

    amount: Amount = "constant"
    """For gates with a threshold: push open rows by 1, shared by the requests that open (`"constant"`), or by each
    request's gate value (`"gate"`)."""

    decode_strength: float = 1.0
    """Extra factor for generated tokens (scope `prompt+generation`)."""

    decode_decay: float = 1.0
    """Each generated token gets this factor times the push of the one before it."""

    decode_directions: Mapping[HookSite, Tensor] | None = None
    """Other vectors for generated tokens; the default is `directions`."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Provenance as JSON values: model id and revision, solver, data hashes, seed, code version, ..."""

    def __post_init__(self) -> None:
        for name, value, kind in (
            ("mode", self.mode, Mode), ("scope", self.scope, Scope), ("amount", self.amount, Amount)
        ):  # fmt: skip
            if value not in get_args(kind):
                raise ValueError(f"Eraser.{name} is {value!r}; it must be one of {', '.join(get_args(kind))}.")
        for name in ("strength", "decode_strength", "decode_decay"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"Eraser.{name} is {getattr(self, name)}; it must be a finite number.")
        if not self.directions:
            raise ValueError("An eraser needs a direction at one hook site at least.")
        vectors = [*self.directions.values(), *(self.decode_directions or {}).values()]
        shapes = {tuple(v.shape) for v in vectors} | {tuple(g.weight.shape) for g in self._deciding().values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise ValueError(f"Directions and gate vectors must all have one shape (k, d); got {sorted(shapes)}.")
        if self.decode_directions is not None and not set(self.decode_directions) <= set(self.directions):
            raise ValueError("decode_directions has sites that are not steered at the prompt.")
        self._check_gates()

    def _check_gates(self) -> None:
        missing = [str(site) for site in in_order(self.directions) if site not in self.gates]
        if self.mode == "two_pass":
            sites = in_order(self.gates)
            if not sites or any((self.gates[site].threshold is None) == (site == sites[-1]) for site in sites):
                raise ValueError(
                    f"Mode 'two_pass' decides at its last gate site by a threshold, which the sites before it do not "
                    f"have; got {len(sites)} gates. Make the last one with .with_threshold(value)."
                )
            if len(sites) > 1 and any(gate.rms for gate in self.gates.values()):
                raise ValueError("Gates at several sites read the plain stream; fit them with rms=False.")
            last = self.gates[sites[-1]]
            parts = {tuple(self.gates[site].weight.shape) for site in sites[:-1]}
            if parts - {(last.readings, self.hidden_size)}:
                raise ValueError(
                    f"The parts of a gate at several sites take {last.readings} readings of width {self.hidden_size}, "
                    f"as the last one does; got {sorted(parts)}. Make them with gate.split(number of sites)."
                )
        elif self.mode == "constant" and self.gates:
            raise ValueError("Mode 'constant' has no gate; leave `gates` empty or choose another mode.")
        elif self.mode == "published" and missing:
            raise ValueError(f"Mode 'published' reads a gate at every steered site; missing at {', '.join(missing)}.")
        elif self.mode == "gated" and missing:
            depth = min(HookSite.parse(site).depth for site in missing)
            if len(self.gates) != 1 or next(iter(self.gates)).depth > depth:
                raise ValueError(
                    f"Mode 'gated' has no gate at {', '.join(missing)}. Give every steered site a gate, or "
                    "one gate at the first steered site or before it; a later gate needs mode 'two_pass'."
                )

    def _deciding(self) -> Mapping[HookSite, Gate]:
        """Gates with values of their own: of mode `two_pass` the last one, to whose readings the others add theirs."""
        return {site: self.gates[site] for site in in_order(self.gates)[-1 if self.mode == "two_pass" else 0 :]}

    @property
    def sites(self) -> tuple[HookSite, ...]:
        """The steered sites in the order of the forward pass."""
        return in_order(self.directions)

    @property
    def decision_site(self) -> HookSite | None:
        """The site that decides: the last gate site of mode `two_pass`, or that of the only gate; else `None`."""
        return in_order(self.gates)[-1] if self.mode == "two_pass" or len(self.gates) == 1 else None

    @property
    def hidden_size(self) -> int:
        """Width `d` of the residual stream that the eraser was made for."""
        return next(iter(self.directions.values())).shape[1]

    @property
    def rank(self) -> int:
        """Number `k` of requests."""
        return next(iter(self.directions.values())).shape[0]

    def with_(self, **changes: Any) -> Eraser:
        """The same eraser with some fields changed, for example `eraser.with_(strength=0.5)`."""
        return replace(self, **changes)

    def with_threshold(self, threshold: float) -> Eraser:
        """The same eraser with one threshold for all its gates, or for the decision of mode `two_pass`."""
        changed = {site: gate.with_threshold(threshold) for site, gate in self._deciding().items()}
        return self.with_(gates={**self.gates, **changed})

    def check(self, model: nn.Module) -> None:
        """Raise `ValueError` if the eraser was made for another model (blocks, size, configuration)."""
        decoder = find_decoder(model)
        if decoder.hidden_size != self.hidden_size:
            raise ValueError(
                f"The eraser was made for hidden size {self.hidden_size}, the model has "
                f"{decoder.hidden_size}. Load the eraser that belongs to this model, or fit one."
            )
        for site in (*self.directions, *self.gates):
            decoder.block(site)
        expected = self.metadata.get("config_hash")
        if expected is not None and expected != (actual := artifact.config_hash(model)):
            raise ValueError(
                f"The eraser was made for a model with configuration hash {expected[:12]}, this model has "
                f"{actual[:12]} (model id in the artifact: {self.metadata.get('model_id', 'unknown')}). Load "
                "the model that it was fitted on."
            )

    @contextmanager
    def attach(self, model: nn.Module) -> Iterator[Steering]:
        """Steer a model while the context is open: `with eraser.attach(model): model.generate(**inputs)`.

        Yields a handle with the latest decisions (`opened`, `gate_values`). The model is restored at the end,
        on exceptions too. Raises `ValueError` when the eraser does not fit the model. See
        `eraser_lib.steering`.
        """
        self.check(model)
        steering = Steering(self, model)
        with steering.attached():
            yield steering

    def inspect(self) -> dict[str, Any]:
        """A summary as plain values: sites, shapes, norms, thresholds, size in bytes, provenance."""
        tensors = [t for t in (*self.directions.values(), *(self.decode_directions or {}).values())]
        for gate in self.gates.values():
            tensors += gate.tensors.values()
        return {
            "mode": self.mode,
            "scope": self.scope,
            "strength": self.strength,
            "amount": self.amount,
            "rank": self.rank,
            "hidden_size": self.hidden_size,
            "steered_sites": [str(site) for site in self.sites],
            "gate_sites": [str(site) for site in in_order(self.gates)],
            "direction_norms": {
                str(site): [round(float(norm), 6) for norm in self.directions[site].norm(dim=1)] for site in self.sites
            },
            "thresholds": {
                str(site): None if gate.threshold is None else gate.threshold.tolist()
                for site, gate in self.gates.items()
            },
            "bytes": sum(t.numel() * t.element_size() for t in tensors),
            "metadata": dict(self.metadata),
        }

    def save_pretrained(self, folder: str | Path, *, model: nn.Module | None = None) -> None:
        """Write `eraser.safetensors` and `eraser.json`; `model` records its configuration hash and id."""
        artifact.save(self, Path(folder), model)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, model: nn.Module | None = None) -> Eraser:
        """Read what `save_pretrained` wrote, and check it against `model` if given."""
        eraser = artifact.load(Path(folder))
        if model is not None:
            eraser.check(model)
        return eraser

    def push_to_hub(self, repo_id: str, *, private: bool = True, token: str | None = None) -> str:
        """Upload the artifact to the Hugging Face hub; returns the address of the commit.

        An artifact is derived from the erased data: keep the repository private unless that is meant to be
        known.
        """
        return artifact.push(self, repo_id, private=private, token=token)
