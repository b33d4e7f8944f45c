"""All methods side by side: the searches, the curves, the choice and the ledger, from small notes on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from eraser_lib.experiments import contest
from eraser_lib.experiments.ledger import ledger
from eraser_lib.experiments.speaking import FORMS
from eraser_lib.experiments.study import Study
from eraser_lib.figures.tradeoff import tradeoff


def tried(score: float, forget: float, kept: float, babble: float = 0.0, **dial: object) -> dict[str, object]:
    return {
        "score": score,
        "forget_prob": forget,
        "kept_prob": kept,
        "gibberish": babble,
        "kept_gibberish": 0.0,
        **dial,
    }


@pytest.fixture
def study(tmp_path: Path) -> Study:
    found = Study(preset="toy", model="llava", split=5, out=tmp_path)
    found.note("selection-5", {
        "constant": [tried(0.5, 1.0, 1.0, strength=0.0), tried(0.6, 0.2, 0.3, strength=1.0)],
        "published": [tried(0.7, 0.4, 0.9, strength=0.5)],
        "score": {"mllmeraser": tried(1.0, 0.0, 1.0)},
    })  # fmt: skip
    found.note("tuning-npo", {"rows": [
        tried(0.6, 0.8, 0.9, settings="NPO(beta=0.5)", objective=1, lr=1e-3, steps=20, seconds=5.0),
        tried(0.9, 0.1, 0.9, 0.5, settings="NPO(beta=0.5)", objective=1, lr=1e-3, steps=40, seconds=9.0),
        tried(0.5, 0.9, 0.9, settings="NPO(beta=0.5)", objective=1, lr=1e-4, steps=40, seconds=6.0),
        tried(0.7, 0.5, 0.9, settings="NPO(beta=0.1)", objective=0, lr=1e-3, steps=20, seconds=5.0),
    ]})  # fmt: skip
    found.note("closed", {
        "leace": [tried(0.5, 0.9, 0.9, settings="Leace(layers=(1,))"),
                  tried(0.55, 0.8, 0.8, settings="Leace(layers=(2,))")],
        "manu": [tried(0.4, 0.2, 0.1, settings="Manu(share=0.2, raw=False)"),
                 tried(0.6, 0.6, 0.8, settings="Manu(share=0.05, raw=False)"),
                 tried(0.5, 0.9, 0.9, settings="Manu(share=0.05, raw=True)")],
        "costs": {
            "manu": {"seconds": 2.0, "neurons": 10, "peak_memory_bytes": 70, "search_seconds": 6.0},
            "leace": {"seconds": 0.5, "bytes": 64, "peak_memory_bytes": None},
        },
    })  # fmt: skip
    runs = [{"seconds": 1.0, "trained_parameters": 9}, {"seconds": 3.0, "trained_parameters": 9}]
    found.note("cost_npo-5", {"rows": runs})
    found.note("cost", {"gate_fit": {"seconds": 4.0}})
    path = found.artifact("mllmeraser") / "eraser.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 100)
    return found


def test_every_search_is_found(study: Study) -> None:
    tables = contest.searches(study)
    assert set(tables) == {"constant", "mllmeraser_published", "npo", "leace", "manu", "mllmeraser"}
    assert tables["manu"]["dial"].tolist() == [0.2, 0.05, 0.05]
    assert tables["leace"]["dial"].isna().all()


def test_a_curve_is_the_best_setting_along_its_dial(study: Study) -> None:
    curves = contest.curves(contest.searches(study))
    assert curves["npo"].to_dict("list") == {"dial": [20, 40], "gone": [0.8, 0.1], "kept": [0.9, 0.9]}
    assert curves["manu"]["dial"].tolist() == [0.05, 0.2], "the other form is another curve"
    assert curves["constant"]["gone"].tolist() == [1.0, 0.2]
    assert len(curves["leace"]) == 1, "maps at different blocks are no curve"


def test_the_best_and_the_best_that_does_not_babble(study: Study) -> None:
    rows = contest.chosen(contest.searches(study)).set_index("method")
    npo = rows.loc["npo"]
    assert (npo["tried"], npo["settings"], npo["dial"], npo["gibberish"]) == (4, "NPO(beta=0.5), rate 0.001", 40, 0.5)
    assert npo["fits"] == 3, "one training was looked at twice"
    assert (npo["fluent_settings"], npo["fluent_score"]) == ("NPO(beta=0.1), rate 0.001", 0.7)


def test_what_is_chosen_by_opened_prompts_counts_all_that_was_tried(study: Study, tmp_path: Path) -> None:
    tables = contest.searches(study)
    assert contest.recognised(replace(study, out=tmp_path / "elsewhere")) == {}
    choice = {
        "decision": {"solver": "person:ridge", "layers": [2, 3]},
        "push": {"direction": "text", "strength": 4.0, "layers": [0]},
    }
    select = study.read_note("selection-5", made_by="") | {"choice": choice, "decision": [{}] * 5, "push": [{}] * 2}
    study.note("selection-5", select)
    best = {"choice": {"detector": {"rule": "Gaussian", "layers": [1]}}, "detector": [{}] * 3}
    study.note("closed", study.read_note("closed", made_by="") | best)
    rows = contest.chosen(tables, contest.recognised(study)).set_index("method")
    assert rows["tried"][["mllmeraser", "detector", "npo"]].tolist() == [7, 3, 4]
    assert rows["fits"][["mllmeraser", "detector", "npo"]].tolist() == [7, 3, 3]
    assert rows.loc["mllmeraser", "settings"] == "person:ridge at [2, 3]; text x 4 at [0]"
    assert rows.loc["detector", "settings"] == "Gaussian at [1]" and pd.isna(rows.loc["detector", "score"])
    assert rows.loc["mllmeraser", "score"] == contest.chosen(tables).set_index("method").loc["mllmeraser", "score"]


def test_the_ledger_by_hand(study: Study) -> None:
    (study.out / "manifests").mkdir()
    (study.out / "manifests" / "llava-5-08_npo.json").write_text('{"peak_memory_bytes": 123}')
    (study.out / "manifests" / "llava-all-08_tune_npo.json").write_text('{"seconds": 20}')
    for job, seconds in (("03_direction", 1), ("04_gate", 2), ("06_select", 4)):
        (study.out / "manifests" / f"llava-5-{job}.json").write_text(json.dumps({"seconds": seconds}))
    rows = ledger(study).set_index("method")
    assert rows.loc["npo", "peak_memory_bytes"] == 123 and pd.isna(rows.loc["leace", "peak_memory_bytes"])
    manu = rows.loc["manu", ["peak_memory_bytes", "search_seconds"]]
    assert manu.tolist() == [70, 6], "its own part of a process that it shares"
    npo = rows.loc["npo", ["fit_seconds", "search_seconds", "trained_parameters", "stored_bytes"]]
    assert npo.tolist() == [2, 20, 9, 18]
    spread = rows[["fit_seconds_low", "fit_seconds_high"]].dropna()
    assert spread.loc["npo"].tolist() == [1, 3] and list(spread.index) == ["npo"], "where there are several"
    assert rows.loc["mllmeraser", "search_seconds"] == 7 and pd.isna(rows.loc["leace", "search_seconds"])
    study.log_path("prompt").parent.mkdir(parents=True)
    study.log_path("prompt").touch()
    (study.out / "manifests" / "llava-5-06_baselines.json").write_text('{"peak_memory_bytes": 55}')
    study.note("quadratic_erased", {"seconds": 8.0})
    file = study.artifact("mllmeraser_quadratic") / "eraser.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x" * 30)
    (study.out / "manifests" / "llava-5-18_quadratic.json").write_text('{"peak_memory_bytes": 66, "seconds": 16}')
    more = ledger(study).set_index("method")[["fit_seconds", "search_seconds", "peak_memory_bytes"]]
    assert more.loc["mllmeraser_quadratic"].tolist() == [8, 23, 66], "its own search after that of the gate"
    assert more.loc["prompt", ["fit_seconds", "peak_memory_bytes"]].tolist() == [0, 55]
    (study.out / "manifests" / "llava-5-04_gate.json").unlink()
    assert pd.isna(ledger(study).set_index("method").loc["mllmeraser", "search_seconds"]), "no part for all"
    assert rows.loc["mllmeraser", ["fit_seconds", "trained_parameters", "stored_bytes"]].tolist() == [4, 0, 100]
    assert rows.loc["manu", "stored_bytes"] == 40 and rows.loc["manu", "undo"] == "load the old weights"
    assert rows.loc["leace", ["stored_bytes", "undo"]].tolist() == [64, "detach"]
    timed = [{"method": "unsteered", "batch": 1, "prefill_seconds": 9.0}, {"method": "eraser", "batch": 32}]
    timed += [{"method": "unsteered", "batch": 32, "prefill_seconds": seconds} for seconds in (1.6, 9.0)]
    study.note("cost", {"gate_fit": {"seconds": 4, "forget": 20, "retain": 40}, "rows": timed})
    read = ledger(study).set_index("method")["reading_seconds"].dropna()
    assert read.to_dict() == dict.fromkeys(("mllmeraser", "mllmeraser_quadratic", "leace"), 3.0), "60 of 0.05 s"
    assert rows["undo_seconds"].isna().all()
    timed = ledger(study, lambda _: {"weights": 2.0, "mllmeraser": 0.1}).set_index("method")
    undone = timed["undo_seconds"]
    assert undone[["npo", "manu", "mllmeraser"]].tolist() == [2.0, 2.0, 0.1] and pd.isna(undone["leace"])


def test_fits_and_searches_cost_what_one_run_took(study: Study) -> None:
    times = {"first_seconds": 2.0, "step_seconds": 1.0, "look_seconds": 10.0}
    fits = [{"method": "mllmeraser", "seconds": seconds} for seconds in (1.0, 3.0)]
    rows = [{"method": "npo", **times}, {"method": "npo", **times, "step_seconds": 3.0}]
    study.note("pace", {"rows": rows, "fits": fits, "reading": {"seconds": 70.0, "calibration_seconds": 5.0}})
    study.note("cost_npo-5", {"rows": [{"seconds": 500.0, "steps": 11, "trained_parameters": 9}]})
    made = ledger(study).set_index("method")
    npo = made.loc["npo"]
    fit, search = ["fit_seconds", "fit_seconds_low", "fit_seconds_high"], npo["search_seconds"]
    assert npo[fit].tolist() == [22, 12, 32], "ten steps after the first, whatever the job took"
    assert made.loc["mllmeraser", fit].tolist() == [2, 1, 3], "before what 06_erase noted"
    assert made["reading_seconds"].dropna().to_dict() == {"mllmeraser": 75, "leace": 70}, "with what sets a threshold"
    assert made.loc["leace", "fit_seconds"] == 0.5, "as its notebook noted"
    # three trainings of 40, 40 and 20 steps with four looks, at 1 and at 3 s a step
    assert search == pytest.approx((3 * 2 + 97 * 1 + 40 + 3 * 2 + 97 * 3 + 40) / 2)


def test_searches_and_memory_are_those_of_the_run_that_timed_the_fits(study: Study) -> None:
    (study.out / "manifests").mkdir()
    (study.out / "manifests" / "llava-5-08_npo.json").write_text('{"peak_memory_bytes": 123}')
    (study.out / "manifests" / "llava-5-06_erase.json").write_text('{"peak_memory_bytes": 456}')
    parts = {"direction": 1.0, "practice": 2.0, "decision": 4.0, "leace": 8.0}
    noted = {
        "searches": [{"part": part, "seconds": took, "peak_memory_bytes": 900} for part, took in parts.items()],
        "fits": [{"method": "mllmeraser", "seconds": 1.0, "peak_memory_bytes": 700},
                 {"method": "manu", "seconds": 1.0, "peak_memory_bytes": 650},
                 {"method": "leace", "seconds": 1.0, "peak_memory_bytes": 700}],
        "reading": {"seconds": 1.0, "calibration_seconds": 1.0, "peak_memory_bytes": 800},
        "undone": {"weights": 3.0, "leace": 0.5},
    }  # fmt: skip
    study.note("pace", noted)
    rows = ledger(study, lambda _: {"weights": 2.0}).set_index("method")
    assert rows.loc["leace", ["search_seconds", "peak_memory_bytes"]].tolist() == [10, 800], "reading took more"
    assert rows.loc["mllmeraser", "peak_memory_bytes"] == 900, "as its directions did"
    assert pd.isna(rows.loc["mllmeraser", "search_seconds"]), "what it pushes was not timed: a part is no price"
    assert rows.loc["manu", ["search_seconds", "peak_memory_bytes"]].tolist() == [6, 650], "its own part as it noted it"
    assert rows.loc["npo", "peak_memory_bytes"] == 123, "of its job, where it was not watched"
    assert rows.loc["npo", "undo_seconds"] == 3 and rows.loc["leace", "undo_seconds"] == 0.5
    noted["searches"].append({"part": "push", "seconds": 16.0, "peak_memory_bytes": 900})
    noted["rows"] = [{"method": "npo", "first_seconds": 1.0, "step_seconds": 1.0, "look_seconds": 1.0,
                      "peak_memory_bytes": size} for size in (1000, 1100)]  # fmt: skip
    study.note("pace", noted | {"answering_bytes": 600})
    study.note("cost_npo-5", {"rows": [{"seconds": 500.0, "steps": 11, "trained_parameters": 9}]})
    study.log_path("prompt").parent.mkdir(parents=True)
    study.log_path("prompt").touch()
    rows = ledger(study).set_index("method")
    assert rows.loc["mllmeraser", "search_seconds"] == 23
    assert rows["peak_memory_bytes"][["npo", "prompt"]].tolist() == [1100, 600]


def test_retraining_costs_its_own_stages_where_a_core_took_them(study: Study, tmp_path: Path) -> None:
    study = replace(study, checkpoints=tmp_path / "models")
    assert "retain_only" not in set(ledger(study)["method"]), "made elsewhere"
    folder = study.branch("retain_only_5")
    folder.mkdir(parents=True)
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(5)}, folder / "model.safetensors")
    size = (folder / "model.safetensors").stat().st_size
    curve = [
        {"stage": "base", "step": 99, "seconds_per_step": 5.0},
        {"stage": "retain_only_5", "step": 0, "seconds_per_step": 9.0},
        {"stage": "retain_only_5", "step": 9, "seconds_per_step": 2.0},
        {"stage": "retain_only_5-choices-0", "step": 4, "seconds_per_step": 1.0},
    ]
    for device, seconds in (("cpu", 25.0), ("cuda", None)):
        (folder / "training.json").write_text(json.dumps({"curve": curve, "device": device}))
        row = ledger(study, lambda _: {"weights": 2.0}).set_index("method").loc["retain_only"]
        assert pd.isna(row["fit_seconds"]) if seconds is None else row["fit_seconds"] == seconds
        assert row[["stored_bytes", "undo", "undo_seconds"]].tolist() == [size, "load the old weights", 2.0]
        assert row["trained_parameters"] == 17


def gated(method: str, values: list[float], threshold: float, said: list[float]) -> pd.DataFrame:
    """Rows about two forgotten and two retained people, with what a gate says and how likely the answer then is."""
    opened = [value > threshold for value in values]
    return pd.DataFrame({
        "method": method, "id": ["a", "b", "c", "d"], "subset": ["test", "test", "retain", "retain"],
        "gate_value": values, "opened": opened, "answer_prob": said,
    })  # fmt: skip


def test_a_threshold_is_a_dial_as_far_as_the_log_can_tell() -> None:
    before = gated("vanilla", [0.0] * 4, 1.0, [0.9, 0.8, 1.0, 0.6]).assign(gate_value=None, opened=None)
    # the detector gives everybody the same answer, so that what it would say to the others is known
    detector = gated("detector", [3.0, 1.0, 2.0, 0.0], 1.5, [0.0, 0.8, 0.0, 0.6])
    gate = gated("mllmeraser_quadratic", [3.0, 1.0, 2.0, 0.0], 1.5, [0.1, 0.8, 0.3, 0.6])
    lines = contest.by_threshold(pd.concat([before, detector, gate]))
    for line in lines.values():
        assert line["dial"].is_monotonic_increasing
        first = line.iloc[0]
        assert (first["gone"], first["kept"]) == pytest.approx((0.85, 0.8)), "nobody is opened: vanilla"
    at = {(row.gone, row.kept) for row in lines["detector"].round(3).itertuples()}
    assert {(0.4, 0.8), (0.4, 0.3), (0.0, 0.3)} <= at, "opened one after the other, down to all but the least"
    at = {(row.gone, row.kept) for row in lines["mllmeraser_quadratic"].round(3).itertuples()}
    assert at == {(0.85, 0.8), (0.45, 0.8), (0.45, 0.45)}, "no further than the threshold that was set"
    other = gated("detector", [3.0, 1.0, 2.0, 0.0], 1.5, [0.0, 0.8, 0.0, 0.6]).assign(opened=[False, True, True, False])
    assert contest.by_threshold(pd.concat([before, other])) == {}, "what is opened is not told by this value"


def logs() -> pd.DataFrame:
    rows = []
    for method, gone in (("vanilla", 1.0), ("npo", 0.25)):
        for seed in (0, 1)[: 1 + (method == "npo")]:
            for person in ("a", "b", "c"):
                for subset, prob in (("test", gone + 0.1 * seed), ("retain", 0.9)):
                    rows.append({"model": "llava", "method": method, "seed": seed, "subset": subset, "person": person,
                                 "answer_prob": prob, "refusal": subset == "test" and person == "a",
                                 "gibberish": False})  # fmt: skip
    return pd.DataFrame(rows)


def test_what_a_method_trades(study: Study) -> None:
    points = contest.trade(logs()).set_index("method")
    assert points.loc["npo", "gone"] == pytest.approx(0.3) and points.loc["npo", "kept"] == pytest.approx(0.9)
    assert points.loc["npo", "refused"] == pytest.approx(1 / 3) and points.loc["npo", "gibberish"] == 0
    assert points.loc["npo", "gone_low"] < 0.3 < points.loc["npo", "gone_high"], "seeds differ, so the interval is wide"
    assert points.loc["vanilla", "gone_low"] == points.loc["vanilla", "gone_high"] == 1
    only = logs()
    assert "vanilla" not in set(
        contest.trade(only[(only["method"] != "vanilla") | (only["subset"] == "test")])["method"]
    )
    figure = tradeoff(contest.trade(logs()), {"llava": contest.curves(contest.searches(study))})
    panel, corner = figure.axes
    assert len([line for line in corner.lines if line.get_marker() in ("o", "s")]) == 1, "vanilla lies outside"
    marks = [line for line in panel.lines if line.get_marker() in ("o", "s")]
    assert [(float(m.get_xdata()[0]), float(m.get_ydata()[0])) for m in marks] == [  # type: ignore[index]
        pytest.approx((0.9, 1.0)), pytest.approx((0.9, 0.3)),
    ]  # fmt: skip
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1 Vanilla", "2 NPO"]

    points = contest.trade(logs())
    quiet = points[points["method"] == "npo"].assign(gone=0.5, form="speaking")
    panel, _ = tradeoff(points, {}, quiet).axes
    marks = [line for line in panel.lines if line.get_marker() == "o"]
    fills = [m.get_markerfacecolor() == m.get_color() for m in marks]
    assert fills == [True, False] and float(marks[1].get_ydata()[0]) == 0.5  # type: ignore[index]
    more = pd.concat([quiet.assign(form=form) for form in FORMS.values()])
    found = [line for line in tradeoff(points, {}, more).axes[0].lines if line.get_marker() in ("o", "D")]
    assert [(m.get_marker(), m.get_markerfacecolor() == m.get_color()) for m in found] == [
        ("o", True), ("o", False), ("D", False),
    ], "as many steps, as many passes"  # fmt: skip


def test_newcomers_are_those_who_are_forgotten_at_no_smaller_share() -> None:
    logs = pd.DataFrame({
        "subset": ["test", "forget", "test", "retain", "general"], "person": ["a", "a", "b", "a", None],
    })  # fmt: skip
    forget = {5: ("a",), 10: ("a", "b"), 15: ("a", "b", "c")}
    assert contest.newcomers(logs, forget, 10).index.tolist() == [2, 3, 4], "rows about others stay"
    assert contest.newcomers(logs, forget, 15).index.tolist() == [3, 4]
    assert contest.newcomers(logs, forget, 5).empty
    assert contest.newcomers(logs, {10: ("a", "b")}, 10).empty, "the smallest share that there is"
