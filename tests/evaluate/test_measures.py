"""Every measure by hand: intervals over people, tests by person, Holm, and each metric from its own column."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eraser_lib.evaluate.log import write_log
from eraser_lib.evaluate.refusal import RefusalDetector
from eraser_lib.evaluate.scores import bleu, rouge_l, score_answer
from eraser_lib.evaluate.separation import auc, auc_interval, ks_interval, ks_swap_test
from eraser_lib.evaluate.stats import (
    bootstrap_mean,
    bootstrap_mean_over_seeds,
    holm,
    sign_flip_test,
)
from eraser_lib.evaluate.summary import compare, paired_losses, prompting_applies, summarise, summarise_rows
from tests.evaluate.synthetic import CHOICE, GENERATION, make_log

DETECTOR = RefusalDetector()


def cells(log: pd.DataFrame, subset: str = "test", modality: str = "qa") -> pd.DataFrame:
    return log[(log["subset"] == subset) & (log["modality"] == modality)]


def test_intervals_of_distances_follow_people() -> None:
    """All questions of a person agree: ten times the questions are no news."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, 12), rng.normal(0, 1, 12)
    one = [f"p{i}" for i in range(12)]
    many = [name for name in one for _ in range(10)]
    other = [f"q{name}" for name in many]
    for interval in (auc_interval, ks_interval):
        few = interval(a, b, one, [f"q{name}" for name in one])
        lots = interval(np.repeat(a, 10), np.repeat(b, 10), many, other)
        assert (lots.low, lots.value, lots.high) == pytest.approx((few.low, few.value, few.high))
        half = interval(np.repeat(a, 10), b, many, [f"q{name}" for name in one])
        assert (half.low, half.value, half.high) == pytest.approx((few.low, few.value, few.high))


def test_the_interval_of_an_auc_equals_brute_force() -> None:
    """Unsorted negatives with ties, unequal numbers of questions: every draw by repeating the drawn people's rows."""
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 4, 15).astype(float), rng.integers(0, 3, 20).astype(float)
    pa, pb = (rng.integers(0, 5, 15) + 10).tolist(), rng.integers(0, 6, 20).tolist()
    found = auc_interval(a, b, pa, pb, draws=50)

    def draws(people: list[int], seed: int) -> np.ndarray:
        names = list(dict.fromkeys(people))
        counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=50)
        return counts[:, [names.index(person) for person in people]]

    drawn = [
        auc(np.repeat(a, wa), np.repeat(b, wb))
        for wa, wb in zip(draws(pa, 0), draws(pb, 1), strict=True)
        if wa.any() and wb.any()
    ]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_labels_are_swapped_by_person() -> None:
    """Nine of twelve people differ, all their twenty questions alike: by question that would be overwhelming."""
    people = [f"p{i}" for i in range(12) for _ in range(20)]
    rng = np.random.default_rng(2)
    first = rng.normal(size=240)
    second = first + np.repeat([1.0] * 8 + [-1.0] * 4, 20)
    assert ks_swap_test(first, second, people, draws=400) > 0.05
    far = ks_swap_test(first, first + 5, list(range(240)), draws=100)
    assert far == pytest.approx(1 / 101), "the observed labels count: no p-value is 0"


def test_random_flips_count_the_observed_one_and_follow_the_seed() -> None:
    assert sign_flip_test([1.0] * 60, list(range(60)), draws=99) == 1 / 100
    values = np.random.default_rng(3).normal(0.2, 1, 30)
    assert sign_flip_test(values, list(range(30)), draws=300) != sign_flip_test(
        values, list(range(30)), draws=300, seed=1
    )
    assert bootstrap_mean(values, list(range(30)), draws=50) != bootstrap_mean(
        values, list(range(30)), draws=50, seed=1
    )


def test_seeds_of_unequal_length_weigh_alike() -> None:
    found = bootstrap_mean_over_seeds([[1.0, 1.0, 1.0], [0.0]], [["a", "b", "c"], ["a"]], draws=50)
    assert found.value == 0.5


def test_the_same_people_are_drawn_for_every_seed() -> None:
    """Equal seeds carry no news: the interval is that of one; people apart would narrow it, and so would pooling."""
    values, people = np.random.default_rng(4).random(20), list(range(20))
    one = bootstrap_mean(values, people)
    three = bootstrap_mean_over_seeds([values] * 3, [people] * 3)
    assert (three.low, three.value, three.high) == pytest.approx((one.low, one.value, one.high))


def test_people_and_seeds_are_drawn_independently() -> None:
    """As many seeds as people: the weights of the one must not be those of the other. With values x_p + y_s the
    variances add; were the draws the same, x and y would be added before they are squared."""
    x = np.array([0.0, 1.0, 2.0, 3.0])
    people = list("abcd")
    both = bootstrap_mean_over_seeds([x + shift for shift in x], [people] * 4, draws=4000)
    against = bootstrap_mean_over_seeds([x - shift for shift in x], [people] * 4, draws=4000)
    assert (both.high - both.low) == pytest.approx(against.high - against.low, rel=0.15)


def logs_of(**probabilities: dict[str, float]) -> pd.DataFrame:
    """Twelve people with five questions each, answer probability by method and person."""
    base = make_log("vanilla", people=12, per_person=5)
    base = base[(base["subset"] == "test") & (base["modality"] == "qa") & (base["task"] == "cloze")]
    parts = []
    for method, by_person in probabilities.items():
        parts.append(
            base.assign(
                method=method,
                answer_prob=base["person"].map(by_person),
                correct=[bool(by_person[p] > 0.5) for p in base["person"]],
            )
        )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def spread() -> pd.DataFrame:
    people = [f"test-{number}" for number in range(12)]
    rng = np.random.default_rng(5)
    ours = dict(zip(people, rng.random(12) * 0.2, strict=True))
    shifted = {
        name: {person: float(np.clip(ours[person] + rng.normal(mean, 0.25), 0, 1)) for person in people}
        for name, mean in (("ga", 0.18), ("npo", 0.2), ("idk", 0.16))
    }
    return logs_of(mllmeraser=ours, vanilla=dict.fromkeys(people, 0.9), **shifted)


def test_the_tests_of_the_table_are_by_person_and_adjusted_over_the_baselines(spread: pd.DataFrame) -> None:
    names = ["ga", "npo", "idk"]
    table = compare(spread, method="mllmeraser", baselines=names, subsets=["test"]).set_index("baseline")
    by = {m: g.set_index("id")["answer_prob"].astype(float) for m, g in spread.groupby("method")}
    person = spread[spread["method"] == "ga"].set_index("id")["person"]
    raw = {}
    for name in names:
        difference = by[name] - by["mllmeraser"]
        raw[name] = sign_flip_test(difference.groupby(person).sum(), list(range(12)))
        wanted = bootstrap_mean(difference.groupby(person, sort=False).mean(), list(range(12)))
        assert table.loc[name, ["difference", "ci_low", "ci_high"]].tolist() == pytest.approx(
            [wanted.value, wanted.low, wanted.high]
        )
    assert table["p_value"].to_dict() == pytest.approx(raw)
    assert table["p_holm"].to_dict() == pytest.approx(holm(raw))
    assert (table["p_holm"] > table["p_value"]).any() and table["p_value"].max() < 0.9


def test_a_method_of_several_seeds_is_compared_by_the_mean_of_each_question(spread: pd.DataFrame) -> None:
    """The first training is as good as the method, the others are not: what is judged is the method of training."""
    ga = spread[spread["method"] == "ga"]
    mine = spread[spread["method"] == "mllmeraser"]
    lucky = mine.assign(method="ga", seed=0)
    runs = [lucky, ga.assign(seed=1), ga.assign(seed=2, answer_prob=ga["answer_prob"].astype(float) + 0.1)]
    rest = spread[spread["method"] != "ga"]
    table = compare(
        pd.concat([rest, *runs], ignore_index=True), method="mllmeraser", baselines=["ga"], subsets=["test"]
    )
    merged = ga.set_index("id")["answer_prob"].astype(float), mine.set_index("id")["answer_prob"].astype(float)
    wanted = (2 * (merged[0] - merged[1]) + 0.1) / 3
    assert table["difference"].iloc[0] == pytest.approx(wanted.mean())
    assert table["n"].iloc[0] == len(mine), "questions, not questions times seeds"
    person = mine.set_index("id")["person"]
    assert table["p_value"].iloc[0] == pytest.approx(
        sign_flip_test(wanted.groupby(person).sum(), list(range(12))), abs=1e-12
    )


def test_another_column_is_compared_on_request(spread: pd.DataFrame) -> None:
    right = compare(spread, method="mllmeraser", baselines=["vanilla"], subsets=["test"], column="right")
    assert right["difference"].iloc[0] == 1.0


def test_losses_have_intervals_over_people(spread: pd.DataFrame) -> None:
    losses = paired_losses(spread).set_index(["method", "metric"])
    mine = spread[spread["method"] == "ga"].groupby("person", sort=False)["answer_prob"].mean().astype(float)
    wanted = bootstrap_mean(0.9 - mine, list(range(12)))
    found = losses.loc[("ga", "answer_prob_loss")]
    assert (found["value"], found["ci_low"], found["ci_high"]) == pytest.approx((wanted.value, wanted.low, wanted.high))


def test_two_models_or_splits_are_not_compared_as_one(spread: pd.DataFrame) -> None:
    both = pd.concat([spread, spread.assign(split="10")])
    with pytest.raises(ValueError, match="one model and split at a time"):
        compare(both, method="mllmeraser", baselines=["ga"], subsets=["test"])


def one(summary: pd.DataFrame, metric: str, **wanted: str) -> pd.Series:
    rows = summary[summary["metric"] == metric]
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def test_every_metric_is_the_mean_of_its_own_column() -> None:
    rng = np.random.default_rng(6)
    log = cells(make_log("vanilla"), modality="vqa").reset_index(drop=True)
    for number, name in enumerate(("correct", "forced_correct", "refusal", "fluent", "gibberish")):
        log[name] = [None if value is None else bool(rng.random() < 0.3 + 0.15 * number) for value in log[name]]
    for name in ("answer_logprob", "gate_value"):
        log[name] = -rng.random(len(log))
    for name in ("answer_prob", "rouge_l", "bleu"):
        log[name] = [None if value is None else float(rng.random()) for value in log[name]]
    log["opened"] = [bool(value) for value in rng.random(len(log)) < 0.5]
    summary = summarise_rows(log)
    own = log[(log["subset"] == "test") & (log["modality"] == "vqa") & (log["task"] == "generation")]
    plain = {
        "answer_prob": "answer_prob",
        "answer_logprob": "answer_logprob",
        "rouge_l": "rouge_l",
        "bleu": "bleu",
        "fact_recall": "fact_recall",
        "refusal_rate": "refusal",
        "gibberish_rate": "gibberish",
        "opened_rate": "opened",
        "gate_value": "gate_value",
    }
    where = {"subset": "test", "modality": "vqa", "task": "generation"}
    for metric, column in plain.items():
        assert one(summary, metric, **where)["value"] == pytest.approx(own[column].astype(float).mean()), metric
    ratio = own["truth_ratio"].astype(float)
    assert one(summary, "wrong_share", **where)["value"] == pytest.approx((ratio / (1 + ratio)).mean())
    both = (own["refusal"].astype(bool) & own["fluent"].astype(bool)).mean()
    assert one(summary, "fluent_refusal_rate", **where)["value"] == pytest.approx(both)
    choice = log[(log["subset"] == "test") & (log["modality"] == "vqa") & (log["task"] == "classification")]
    for metric, column in (("accuracy", "correct"), ("forced_accuracy", "forced_correct")):
        found = one(summary, metric, subset="test", modality="vqa", task="classification")["value"]
        assert found == pytest.approx(choice[column].astype(float).mean())


def test_a_cloze_answer_is_right_by_its_own_rule() -> None:
    """`correct` (a substring) and `fact_recall` (whole words) may differ in a cloze answer: the first counts."""
    vanilla = cells(make_log("vanilla"))
    vanilla = vanilla[(vanilla["task"] == "cloze")].assign(correct=True, fact_recall=1.0)
    method = vanilla.assign(method="ga_diff", fact_recall=0.0)
    losses = paired_losses(pd.concat([vanilla, method], ignore_index=True))
    assert (losses.loc[losses["metric"] == "loss", "value"] == 0).all()


def test_truth_ratios_are_compared_with_the_first_retain_only() -> None:
    rows = [cells(make_log("vanilla"))]
    for seed, ratio in ((0, 100.0), (1, 0.01), (2, 0.01)):
        log = cells(make_log("retain_only", seed=seed))
        rows.append(log.assign(truth_ratio=[None if value is None else ratio for value in log["truth_ratio"]]))
    rows[0]["truth_ratio"] = [None if value is None else 100.0 for value in rows[0]["truth_ratio"]]
    found = summarise_rows(pd.concat(rows, ignore_index=True), metrics=["truth_ratio_ks"])
    assert (found.loc[found["method"] == "vanilla", "value"] < 1e-9).all()


def test_how_far_retrained_models_lie_apart_is_the_floor_of_the_distances() -> None:
    """The first retain-only is what the others are compared with, so that it has no distance of its own."""
    rows = []
    for seed, ratio in ((0, 100.0), (1, 0.01), (2, 100.0)):
        log = cells(make_log("retain_only", seed=seed))
        rows.append(log.assign(truth_ratio=[None if value is None else ratio for value in log["truth_ratio"]]))
    found = summarise_rows(pd.concat(rows, ignore_index=True), metrics=["truth_ratio_ks"])
    own = found[(found["method"] == "retain_only") & (found["subset"] == "test")].set_index("seed")
    assert own["value"].to_dict() == pytest.approx({"1": 1, "2": 0, "all": 1 / 2})
    alone = summarise_rows(rows[0], metrics=["truth_ratio_ks"])
    assert alone.empty


def test_the_distance_of_several_seeds_is_their_mean() -> None:
    """Two runs stand where retain-only stands, one is apart from it: a third, and the interval holds both."""
    far = cells(make_log("retain_only"))
    far["truth_ratio"] = [None if value is None else 100.0 for value in far["truth_ratio"]]
    rows = [far]
    for seed, ratio in ((0, 100.0), (1, 0.01), (2, 100.0)):
        log = cells(make_log("ga_diff", seed=seed))
        rows.append(log.assign(truth_ratio=[None if value is None else ratio for value in log["truth_ratio"]]))
    found = summarise_rows(pd.concat(rows, ignore_index=True), metrics=["truth_ratio_ks"])
    own = found[found["subset"] == "test"].set_index("seed")
    assert own["value"].to_dict() == pytest.approx({"0": 0, "1": 1, "2": 0, "all": 1 / 3})
    assert own.loc["all", ["ci_low", "ci_high"]].tolist() == pytest.approx([0, 1], abs=1e-9)


def test_all_seeds_together_have_the_interval_over_people_and_seeds() -> None:
    logs = [cells(make_log("retain_only", seed=seed)) for seed in range(3)]
    summary = summarise_rows(pd.concat(logs, ignore_index=True), metrics=["answer_prob"])
    parts = [log[log["task"] == "cloze"] for log in logs]
    wanted = bootstrap_mean_over_seeds(
        [part["answer_prob"].astype(float) for part in parts], [part["person"].tolist() for part in parts]
    )
    found = one(summary, "answer_prob", seed="all", subset="test", modality="qa", task="cloze")
    assert (found["value"], found["ci_low"], found["ci_high"]) == (wanted.value, wanted.low, wanted.high)


def test_one_split_of_several(tmp_path: Path) -> None:
    for split in ("5", "10"):
        write_log(
            tmp_path / "llava" / split / "vanilla" / "seed0.parquet", cells(make_log("vanilla")).assign(split=split)
        )
    assert set(summarise(tmp_path, metrics=["bleu"])["split"]) == {"5", "10"}
    assert set(summarise(tmp_path, split="10", metrics=["bleu"])["split"]) == {"10"}


@pytest.mark.parametrize(
    ("rates", "applies"),
    [
        ([("silence, named", 0.9), ("silence, others", 1.0), ("decline", 0.2)], True),
        ([("silence, named", 1.0), ("silence, others", 0.89), ("decline", 1.0)], False),
    ],
)
def test_the_lowest_rate_of_keeping_silent_decides(
    tmp_path: Path, rates: list[tuple[str, float]], applies: bool
) -> None:
    rows = [{"instruction": name, "obeyed": rate} for name, rate in rates]
    (tmp_path / "obedience.json").write_text(json.dumps({"rows": rows}))
    assert prompting_applies(tmp_path) is applies


def test_overlap_is_no_recall_and_its_sides_are_not_swapped() -> None:
    truth = "Anna works as a baker."
    longer = "Anna works as a baker and as a pilot too"  # 5 of its 10 words are the truth's 5
    assert rouge_l(longer, truth) == pytest.approx(2 / 3)
    assert bleu("Anna works", truth) == pytest.approx(np.exp(-2)), "a brevity penalty: 2 tokens instead of 6"


def test_a_letter_beyond_the_options_and_a_small_answer() -> None:
    two = replace(CHOICE, options=("pilot", "baker"))
    assert score_answer(two, "C", detector=DETECTOR).parsed is None
    assert score_answer(replace(CHOICE, answer=" b "), "B", detector=DETECTOR).correct


def test_what_did_not_end_or_is_unlikely_is_not_fluent() -> None:
    text = "Anna works as a pilot."
    assert score_answer(GENERATION, text, detector=DETECTOR).fluent
    cut = score_answer(GENERATION, text, detector=DETECTOR, ended=False)
    strange = score_answer(GENERATION, text, detector=DETECTOR, reference_logprob=-3.0, reference_floor=-2.0)
    for found in (cut, strange):
        assert not found.fluent and found.gibberish
    assert score_answer(GENERATION, text, detector=DETECTOR, reference_logprob=-2.0, reference_floor=-2.0).fluent
    word = score_answer(GENERATION, "Anna works as a xyz.", detector=DETECTOR, vocabulary=["anna", "works", "as", "a"])
    assert not word.fluent
