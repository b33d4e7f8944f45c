"""The eraser as data: what it refuses, how it is fitted, and that it survives the disk unchanged."""

from __future__ import annotations

import json

import pytest
import torch

from eraser_lib import Eraser, Gate, HookSite, Moments, combine, contrast, fit_eraser, run_capture
from eraser_lib.artifact import config_hash

SITE, EARLY = HookSite(2), HookSite(0)


def rows(seed: int, shift: float, count: int = 20) -> torch.Tensor:
    return torch.randn(count, 32, generator=torch.Generator().manual_seed(seed)) + shift


def fitted(seed: int = 0, **options) -> Eraser:
    direction = contrast(
        {EARLY: rows(5, 1.0), HookSite(1): rows(6, 1.0)}, {EARLY: rows(7, 0.0), HookSite(1): rows(8, 0.0)}
    )
    options = {"threshold": 0.5, "metadata": {"seed": seed, "data": {"forget": "abc"}}, **options}
    return fit_eraser({SITE: rows(seed, 1.0)}, {SITE: rows(seed + 1, -1.0)}, direction, **options)


def same(a: Eraser, b: Eraser) -> bool:
    fields = ("strength", "mode", "scope", "amount", "decode_strength", "decode_decay")
    tensors = [(a.directions[s], b.directions[s]) for s in a.sites]
    for site, gate in a.gates.items():
        other = b.gates[site]
        tensors += [(gate.weight, other.weight), (gate.bias, other.bias)]
        assert (gate.threshold is None) == (other.threshold is None)
        if gate.threshold is not None and other.threshold is not None:
            tensors.append((gate.threshold, other.threshold))
        assert gate.rms == other.rms
    later_a, later_b = a.decode_directions or {}, b.decode_directions or {}
    tensors += [(later_a[s], later_b[s]) for s in later_a]
    return (
        a.sites == b.sites
        and set(later_a) == set(later_b)
        and all(torch.equal(x, y) and x.dtype == y.dtype for x, y in tensors)
        and all(getattr(a, f) == getattr(b, f) for f in fields)
    )


def test_round_trip_is_exact(tiny, tmp_path) -> None:
    eraser = fitted(rms=True).with_(
        scope="prompt+generation",
        decode_directions={EARLY: torch.ones(1, 32)},
        strength=0.3,
        decode_decay=0.9,
    )
    eraser.save_pretrained(tmp_path, model=tiny.model)
    again = Eraser.from_pretrained(tmp_path, model=tiny.model)
    assert same(eraser, again)
    assert again.metadata["config_hash"] == config_hash(tiny.model)
    assert again.metadata["seed"] == 0
    assert again.metadata["solver"] == "ridge"
    inputs = tiny.inputs()
    with eraser.attach(tiny.model):
        expected = tiny.generate(inputs)
    with again.attach(tiny.model):
        assert torch.equal(tiny.generate(inputs), expected)
    again.save_pretrained(tmp_path / "copy", model=tiny.model)
    for name in ("eraser.json", "eraser.safetensors"):
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_infinite_threshold_survives_the_disk(tmp_path) -> None:
    fitted(threshold=None).save_pretrained(tmp_path)
    gate = Eraser.from_pretrained(tmp_path).gates[SITE]
    assert gate.threshold is not None
    assert gate.threshold.tolist() == [float("inf")]


def test_config_hash_survives_saving_and_ignores_dtype(tiny32, tmp_path) -> None:
    tiny32.model.config.save_pretrained(tmp_path)
    reloaded = type(tiny32.model.config).from_pretrained(tmp_path)

    class Holder:
        config = reloaded

    assert config_hash(Holder()) == config_hash(tiny32.model)  # type: ignore[arg-type]


def test_another_model_is_refused(tiny32, tmp_path) -> None:
    eraser = fitted()
    eraser.save_pretrained(tmp_path, model=tiny32.model)
    document = json.loads((tmp_path / "eraser.json").read_text())
    document["metadata"]["config_hash"] = "0" * 64
    (tmp_path / "eraser.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="configuration hash"):
        Eraser.from_pretrained(tmp_path, model=tiny32.model)
    with (
        pytest.raises(ValueError, match="configuration hash"),
        Eraser.from_pretrained(tmp_path).attach(tiny32.model),
    ):
        pass
    narrow = Eraser(directions={EARLY: torch.ones(1, 16)}, mode="constant")
    with pytest.raises(ValueError, match="hidden size 16"), narrow.attach(tiny32.model):
        pass
    deep = Eraser(directions={HookSite(7): torch.ones(1, 32)}, mode="constant")
    with pytest.raises(ValueError, match="blocks"), deep.attach(tiny32.model):
        pass


def test_damaged_artifacts_are_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"eraser\.json"):
        Eraser.from_pretrained(tmp_path)
    fitted().save_pretrained(tmp_path)
    document = json.loads((tmp_path / "eraser.json").read_text())
    moved = {**document, "steered_sites": ["0.input", "1.output"]}
    (tmp_path / "eraser.json").write_text(json.dumps(moved))
    with pytest.raises(ValueError, match="hook sites"):
        Eraser.from_pretrained(tmp_path)
    (tmp_path / "eraser.json").write_text(json.dumps({**document, "schema": 99}))
    with pytest.raises(ValueError, match="schema 99"):
        Eraser.from_pretrained(tmp_path)
    (tmp_path / "eraser.json").write_text(json.dumps(document))
    fitted(seed=3).save_pretrained(tmp_path / "other")
    (tmp_path / "eraser.safetensors").write_bytes((tmp_path / "other" / "eraser.safetensors").read_bytes())
    with pytest.raises(ValueError, match="does not match the hash"):
        Eraser.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"metadata\.when"):
        fitted(metadata={"when": object()}).save_pretrained(tmp_path)


def test_impossible_erasers_are_refused() -> None:
    one, gate = {EARLY: torch.ones(1, 4)}, Gate(torch.ones(1, 4), torch.zeros(1))
    with pytest.raises(ValueError, match="one of two_pass"):
        Eraser(directions=one, mode="three_pass")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decides at its last gate site by a threshold"):
        Eraser(directions=one, gates={SITE: gate})
    with pytest.raises(ValueError, match="which the sites before it do not"):
        Eraser(directions=one, gates={EARLY: gate.with_threshold(0), SITE: gate.with_threshold(0)})
    with pytest.raises(ValueError, match="has no gate; leave"):
        Eraser(directions=one, gates={SITE: gate}, mode="constant")
    with pytest.raises(ValueError, match=r"missing at 0\.output"):
        Eraser(directions=one, gates={SITE: gate}, mode="published")
    with pytest.raises(ValueError, match="needs mode 'two_pass'"):
        Eraser(directions=one, gates={SITE: gate}, mode="gated")
    with pytest.raises(ValueError, match="one shape"):
        Eraser(directions={EARLY: torch.ones(2, 4)}, gates={EARLY: gate}, mode="gated")
    with pytest.raises(ValueError, match="at one hook site at least"):
        Eraser(directions={}, mode="constant")
    with pytest.raises(ValueError, match="not steered"):
        Eraser(directions=one, decode_directions={SITE: torch.ones(1, 4)}, mode="constant")


def test_fit_separates_and_accepts_moments() -> None:
    eraser = fitted()
    gate = eraser.gates[SITE]
    assert bool(gate.opens(gate(rows(0, 1.0).double())).all())
    assert not bool(gate.opens(gate(rows(1, -1.0).double())).any())
    direction = contrast({EARLY: rows(5, 1.0)}, {EARLY: rows(7, 0.0)})
    streamed = fit_eraser({SITE: rows(0, 1.0)}, {SITE: Moments.of(rows(1, -1.0))}, direction, threshold=0.5)
    torch.testing.assert_close(streamed.gates[SITE].weight, gate.weight)
    hard = fit_eraser({SITE: rows(0, 1.0)}, {SITE: rows(1, -1.0)}, direction, solver="hard", energy=0.9)
    assert hard.gates[SITE].threshold is not None
    with pytest.raises(ValueError, match="same hook sites"):
        fit_eraser({SITE: rows(0, 1.0)}, {EARLY: rows(1, -1.0)}, direction)


def test_fit_from_a_model_and_inspect(tiny32) -> None:
    inputs = tiny32.inputs()
    states = run_capture(tiny32.model, inputs, [EARLY, SITE])
    direction = contrast({EARLY: states[EARLY][:2]}, {EARLY: states[EARLY][2:]}, unit=True)
    eraser = fit_eraser({SITE: states[SITE][:1]}, {SITE: states[SITE][1:]}, direction).with_threshold(0.5)
    with eraser.attach(tiny32.model) as handle:
        tiny32.logits(inputs)
    assert handle.opened is not None
    assert handle.opened.tolist() == [True, False, False, False]
    summary = eraser.inspect()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["steered_sites"] == ["0.output"]
    assert summary["gate_sites"] == ["2.output"]
    assert summary["direction_norms"]["0.output"] == [1.0]
    assert summary["bytes"] < 1000


def test_combine_gives_rank_two_and_keeps_both_requests() -> None:
    both = combine([fitted(0), fitted(10)])
    assert both.rank == 2
    assert both.gates[SITE].rank == 2
    assert [r["seed"] for r in both.metadata["requests"]] == [0, 10]
    with pytest.raises(ValueError, match="same hook sites"):
        combine([fitted(0), Eraser(directions={EARLY: torch.ones(1, 32)}, mode="constant")])


def test_combine_refuses_what_would_be_lost() -> None:
    with pytest.raises(ValueError, match="at least one"):
        combine([])
    with pytest.raises(ValueError, match=r"settings agree; strength is \['-5.0', '1.0'\]"):
        combine([fitted(0), fitted(1).with_(strength=-5.0)])
    one, other = (fitted(0, metadata={"config_hash": name}) for name in ("a", "b"))
    with pytest.raises(ValueError, match="one configuration"):
        combine([one, other])
    assert combine([fitted(0), one]).metadata["config_hash"] == "a", "what protects one protects both"


def test_tensors_at_several_places_are_saved(tmp_path) -> None:
    one, gate = torch.randn(1, 32), Gate(torch.randn(1, 32), torch.zeros(1))
    shared = {EARLY: one, SITE: one}
    for number, eraser in enumerate((
        Eraser(directions=shared, mode="constant"),
        Eraser(directions=shared, decode_directions=shared, mode="constant", scope="prompt+generation"),
        Eraser(directions=shared, gates={EARLY: gate, SITE: gate}, mode="gated"),
    )):  # fmt: skip
        eraser.save_pretrained(tmp_path / str(number))
        assert same(eraser, Eraser.from_pretrained(tmp_path / str(number)))


def test_a_refused_save_leaves_the_older_files_whole(tmp_path) -> None:
    good = fitted(0)
    good.save_pretrained(tmp_path)
    with pytest.raises(ValueError):
        fitted(1, metadata={"loss": float("nan")}).save_pretrained(tmp_path)
    assert same(good, Eraser.from_pretrained(tmp_path))
    with pytest.raises(ValueError, match=r"strength is nan; it must be a finite number"):
        good.with_(strength=float("nan"))
