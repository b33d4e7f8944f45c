"""Test-time unlearning of multimodal language models by gated steering: fit, attach, save, load, inspect."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .adversarial import Attack, pgd, random_noise, round_to_8bit
    from .direction import Direction, contrast
    from .eraser import Eraser
    from .fit import combine, fit_eraser
    from .gate import Gate, hard_gate, retain_basis, ridge_gate, ridge_gates, rms_normalise, stack
    from .hooks import capture, edit, run_capture
    from .moments import Moments
    from .quadratic import Discriminant, QuadraticGate, discriminant, gaussian_gate
    from .sites import Decoder, HookSite, every_layer, find_decoder
    from .steering import Steering
    from .stream import ahead, stream_means, stream_moments
    from .threshold import Calibration, calibrate, conformal_threshold, open_rate_band, smallest_alpha

# Names are resolved on first use, so that parts of the package that need no torch (tables, the book) load
# without it.
_HOMES = {
    "adversarial": ("Attack", "pgd", "random_noise", "round_to_8bit"),
    "direction": ("Direction", "contrast"),
    "eraser": ("Eraser",),
    "fit": ("combine", "fit_eraser"),
    "gate": ("Gate", "hard_gate", "retain_basis", "ridge_gate", "ridge_gates", "rms_normalise", "stack"),
    "hooks": ("capture", "edit", "run_capture"),
    "moments": ("Moments",),
    "quadratic": ("Discriminant", "QuadraticGate", "discriminant", "gaussian_gate"),
    "sites": ("Decoder", "HookSite", "every_layer", "find_decoder"),
    "steering": ("Steering",),
    "stream": ("ahead", "stream_means", "stream_moments"),
    "threshold": ("Calibration", "calibrate", "conformal_threshold", "open_rate_band", "smallest_alpha"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Attack",
    "Calibration",
    "Decoder",
    "Direction",
    "Discriminant",
    "Eraser",
    "Gate",
    "HookSite",
    "Moments",
    "QuadraticGate",
    "Steering",
    "ahead",
    "calibrate",
    "capture",
    "combine",
    "conformal_threshold",
    "contrast",
    "discriminant",
    "edit",
    "every_layer",
    "find_decoder",
    "fit_eraser",
    "gaussian_gate",
    "hard_gate",
    "open_rate_band",
    "pgd",
    "random_noise",
    "retain_basis",
    "ridge_gate",
    "ridge_gates",
    "rms_normalise",
    "round_to_8bit",
    "run_capture",
    "smallest_alpha",
    "stack",
    "stream_means",
    "stream_moments",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
