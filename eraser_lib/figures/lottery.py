"""How much a method's success hangs on who is to be forgotten."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from eraser_lib.plotting import METHOD_COLOURS, MUTED, canvas

KINDS = {"vqa": "asked with a picture", "qa": "asked by name", "retain": "retained people", "celebrity": "celebrities"}


def lottery_dots(table: pd.DataFrame) -> Figure:
    """Share of prompts opened per forget set: one mark per set, a bar at the mean, gates beside the detector.

    Args:
        table: one row per set with columns `<gate, quadratic or detector>_<vqa, qa, retain or celebrity>`.
    """
    methods = {
        "gate": ("mllmeraser", -0.27), "quadratic": ("mllmeraser_quadratic", 0.0), "detector": ("detector", 0.27),
    }  # fmt: skip
    rng = np.random.default_rng(0)  # spreads the marks sideways
    with canvas(1, 2, size=(8.4, 3.9), width_ratios=[1, 1]) as (figure, axes):
        for panel, kinds in zip(axes[0], (("vqa", "qa"), ("retain", "celebrity")), strict=True):
            for place, kind in enumerate(kinds):
                for name, (method, shift) in methods.items():
                    values = table[f"{name}_{kind}"].to_numpy(float)
                    x = place + shift + rng.uniform(-0.06, 0.06, len(values))
                    panel.plot(x, values, "o", color=METHOD_COLOURS[method], markersize=4.5, alpha=0.75)
                    mean = np.nanmean(values) if np.isfinite(values).any() else np.nan
                    panel.plot([place + shift - 0.1, place + shift + 0.1], [mean, mean],
                               color=METHOD_COLOURS[method], linewidth=2.5)  # fmt: skip
            panel.set_xticks(range(len(kinds)), [KINDS[kind] for kind in kinds])
            panel.set_xlim(-0.5, len(kinds) - 0.5)
        axes[0, 0].set_ylim(-0.03, 1.03)
        axes[0, 0].set_title("the people to be forgotten")
        axes[0, 1].set_title("everybody else")
        axes[0, 0].set_ylabel("share of prompts opened")
        axes[0, 1].axhline(0.01, color=MUTED, linewidth=1, linestyle=":")
        axes[0, 1].set_ylim(top=1.3 * axes[0, 1].get_ylim()[1])  # room for the names, which marks stood beside
        for place, (name, (method, _)) in enumerate(methods.items()):
            axes[0, 1].annotate(f"{name} gate" if name == "quadratic" else name, (0.98, 0.94 - 0.07 * place),
                                xycoords="axes fraction", ha="right",
                                color=METHOD_COLOURS[method], fontsize=9, weight="bold")  # fmt: skip
    return figure
