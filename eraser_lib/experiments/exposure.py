"""Who was erased? How well somebody who can ask, time, or read the artifact tells the erased from strangers.

A retain-only model treats a forgotten person like a stranger. A method that makes them stand out has published the list
of requests. Each signal is turned into one number per person, and the AUC says how often an erased person's number is
above that of somebody else. Source: the study's protocol, section 9.
"""

from __future__ import annotations

import pandas as pd

from eraser_lib.evaluate.separation import auc_interval

SIGNALS: dict[str, tuple[str, str, float]] = {
    "refusals": ("refusal", "mean", 1.0),
    "gibberish": ("gibberish", "mean", 1.0),
    "silence about the fact": ("answer_prob", "mean", -1.0),
    "second prefill": ("opened", "mean", 1.0),
    "gate value": ("gate_value", "max", 1.0),
}
"""What an observer sees -> column of the log, how a person's rows become one number, sign. Refusals and gibberish can
be read by anybody who asks; probabilities by who is shown them; a second prefill takes time, which a clock without
noise would see; the gate's value needs the artifact and the model."""
OWNERS = {"second prefill": ("mllmeraser",), "gate value": ("mllmeraser", "mllmeraser_published", "detector")}
"""Methods that have the signal at all; the others do by everybody."""
CONTROLS = ("stranger", "retain")


def exposures(logs: pd.DataFrame) -> pd.DataFrame:
    """AUC over people of guessing who is on the forget list, one row per method, signal and control.

    Args:
        logs: rows of one model and split; the first seed of a method counts. Erased people are those of `test`.

    Returns:
        Columns `method, signal, against` (who is not erased: `stranger` or `retain`), `auc` (0.5 tells nothing),
        `ci_low, ci_high`, `erased` and `others` (people).
    """
    rows = []
    for method, own in logs.groupby("method", sort=False):
        own = own[own["seed"] == own["seed"].min()]
        for signal, (column, how, sign) in SIGNALS.items():
            if method not in OWNERS.get(signal, (method,)) or own[column].isna().all():
                continue
            found = {
                subset: sign * own[own["subset"] == subset].groupby("person")[column].agg(how).astype(float)
                for subset in ("test", *CONTROLS)
            }
            for control in CONTROLS:
                erased, others = (found[name].dropna().to_numpy() for name in ("test", control))
                if not len(erased) or not len(others):
                    continue
                value = auc_interval(erased, others, range(len(erased)), range(len(others)))
                rows.append({
                    "method": method, "signal": signal, "against": control, "auc": value.value, "ci_low": value.low,
                    "ci_high": value.high, "erased": len(erased), "others": len(others),
                })  # fmt: skip
    return pd.DataFrame(rows)
