"""Targets of cost are judged by the interval of what was measured, not by its middle."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from cost_targets import MET, MISSED, NOISE, TARGETS, UNTOLD, Target, fixed, judge, opened, targets_table

from benchmarks.rivals import PEERS, decision_block

CLOSED = Target("prefill", "prefill", "eraser", fixed(1.01), 32)


def measured(ratio: float, low: float, high: float, **columns: Any) -> dict[str, Any]:
    row = {"shape": "48 tokens", "method": "eraser", "layers": 1, "batch": 32, "phase": "prefill", "value": 2.0,
           "reference": "unsteered", "ratio": ratio, "ratio_low": low, "ratio_high": high}  # fmt: skip
    return row | columns


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((1.0, 0.99, 1.01), MET), ((1.02, 1.011, 1.03), MISSED), ((1.005, 1.0, 1.02), UNTOLD), ((1.02, 1, 1.03), UNTOLD)],
)  # fmt: skip
def test_a_target_is_met_or_missed_where_the_whole_interval_says_so(
    interval: tuple[float, float, float], verdict: str
) -> None:
    found = judge(CLOSED, pd.DataFrame([measured(*interval)]), 1, 6)
    assert found is not None
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("interval", "verdict"), [((0.97, 0.9, 0.99), MET), ((1.02, 0.99, 1.04), NOISE), ((1.02, 1.001, 1.04), MISSED)]
)
def test_what_is_to_be_no_slower_beyond_noise_is_missed_only_where_the_whole_interval_says_so(
    interval: tuple[float, float, float], verdict: str
) -> None:
    target = Target("decoding", "decode", "eraser", fixed(1.0), 32, noise=True)
    found = judge(target, pd.DataFrame([measured(*interval, phase="decode")]), 1, 6)
    assert found is not None
    assert found.verdict == verdict


def test_the_fastest_library_is_the_peer_and_neither_a_bare_hook_nor_a_matrix() -> None:
    (target,) = [one for one in TARGETS if one.reference == "*" and one.phase == "prefill" and one.batch == 32]
    against = {"bare hook": 1.3, "unsteered": 1.2, "dense, every token": 1.5, "nnsight": 0.8, "steering-vectors": 0.9}
    rows = pd.DataFrame([
        measured(ratio, ratio - 0.05, ratio + 0.05, method=target.method, reference=name)
        for name, ratio in against.items()
    ])  # fmt: skip
    found = judge(target, rows, 1, 6)
    assert found is not None
    assert found.value == against["steering-vectors"]
    assert set(PEERS) > {"nnsight", "steering-vectors"}


def test_what_was_not_measured_has_no_verdict_and_traffic_is_no_pass() -> None:
    traffic = measured(1.5, 1.4, 1.6, shape="48 tokens, 5 % about forgotten people")
    assert judge(CLOSED, pd.DataFrame([traffic]), 1, 6) is None
    assert judge(CLOSED, pd.DataFrame([measured(1.5, 1.4, 1.6, batch=1)]), 1, 6) is None


@pytest.mark.parametrize(("layers", "depth"), [(1, 6), (6, 6), (1, 32), (8, 28), (28, 28), (2, 2)])
def test_a_second_prefill_is_allowed_up_to_the_block_that_the_benchmark_reads(layers: int, depth: int) -> None:
    assert opened(layers, depth) == pytest.approx(1 + (decision_block(layers, depth) + 1) / depth + 0.02)


def test_bytes_are_judged_by_themselves() -> None:
    (target,) = [one for one in TARGETS if one.bytes]
    row = {**measured(0.001, 0, 0), "method": "eraser", "phase": "artifact", "batch": 0, "reference": "dense"}
    found = [judge(target, pd.DataFrame([{**row, "value": value}]), 1, 6) for value in (2e6, 2.1e6)]
    assert [one and one.verdict for one in found] == [MET, MISSED]


def test_the_table_leaves_out_what_no_model_was_measured_by() -> None:
    rows = pd.DataFrame([measured(1.0, 0.99, 1.005), measured(1.02, 1.015, 1.03, layers=6)])
    head, body, verdicts = targets_table({("tiny-llava", 1): rows, ("tiny-llava", 6): rows, ("tiny-llava", 3): rows})
    assert [text for text, _ in head[1]] == ["target", "at most", "1 block", "6 blocks"]
    assert [[cell.astext() for cell in line] for line in body] == [
        ["prefill, closed gate, batch 32", "1.010", "1.000 met [0.990, 1.005]", "1.020 missed [1.015, 1.030]"]
    ]
    assert verdicts == [MET, MISSED]
