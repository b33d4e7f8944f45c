"""LEACE: its guarantee and its map by hand, the positions it edits, and what it takes and leaves alone."""

from __future__ import annotations

import pytest
import torch

from eraser_lib.baselines.leace import Leace, Scrubbing
from eraser_lib.bench.records import Question
from eraser_lib.evaluate.teacher import prefill
from eraser_lib.experiments.activations import Activations, read_activations
from eraser_lib.families import Loaded
from eraser_lib.hooks import capture
from eraser_lib.sites import HookSite
from tests.baselines.answers import gained

Rows = list[Question]
SITE = HookSite(1, "output")


def streams(count: int, width: int, seed: int, shift: float = 0.0) -> Activations:
    g = torch.Generator().manual_seed(seed)
    return {SITE: torch.randn(count, width, generator=g) + shift}


def test_after_it_the_label_is_uncorrelated_with_every_coordinate() -> None:
    """By hand: LEACE makes the cross-covariance of stream and label zero, here for three labels."""
    forget, retain = streams(60, 6, 0, 1.0), streams(200, 6, 1)
    people = [f"p{number % 2}" for number in range(60)]
    for label in ("forget", "person", "kind"):
        map_ = Leace((1,), label).fit(forget, retain, people).maps[SITE]  # type: ignore[arg-type]
        rows = map_(torch.cat([forget[SITE], retain[SITE]]))
        centred = rows - rows.mean(dim=0)
        for name in ("",) if label == "forget" else ("p0", "p1"):
            z = torch.tensor([float(not name or person == name) for person in people] + [0.0] * 200)
            before = torch.cat([forget[SITE], retain[SITE]])
            was = ((before - before.mean(0)) * (z - z.mean())[:, None]).mean(0).abs().max()
            assert (centred * (z - z.mean())[:, None]).mean(dim=0).abs().max() < 1e-3 * was
        assert map_.proj_right.shape[0] >= (1 if label == "forget" else 2)


def test_a_map_of_two_dimensions_by_hand() -> None:
    """Two forget and two retain rows about (5, 3), nine times each.

    Their covariance is ((2, 1), (1, 1)), which of 36 rows is shrunken by a tenth towards 1.5 times the identity: S is
    ((1.95, 0.9), (0.9, 1.05)). The label moves along c = (1, 1), and S^-1 c stands along (1, 7), so that the map takes
    c (1, 7) (x - mean) / 8 away.
    """
    mean, ends = torch.tensor([5.0, 3.0]), torch.tensor([[2.0, 1.0], [0.0, 1.0]])
    forget, retain = (mean + side * ends.repeat(9, 1) for side in (1, -1))
    map_ = Leace((1,)).fit({SITE: forget}, {SITE: retain}, ["a"] * 18).maps[SITE]
    points = torch.tensor([[2.0, 1.0], [0.0, 1.0], [-2.0, -1.0], [0.0, -1.0], [3.0, -4.0]])
    places = torch.tensor([[7.0, -1.0], [-7.0, 1.0], [-7.0, 1.0], [7.0, -1.0], [49.0, -7.0]]) / 8
    torch.testing.assert_close(map_(mean + points), mean + places)


def test_it_edits_the_answer_positions_or_all(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    read = [read_activations(loaded, [row.prompt for row in rows]) for rows in (forget, retain)]
    inputs = loaded.encode([row.prompt for row in forget[::2]])
    with capture(loaded.model, [SITE], "all") as found:
        prefill(loaded.model, inputs)
        before = found[SITE].clone()
    for everywhere in (False, True):
        made = Leace((1,), everywhere=everywhere).fit(*read, people=["a"] * len(forget))
        expected = made.maps[SITE](before)
        with made.attach(loaded.model) as handle, capture(loaded.model, [SITE], "all") as found:
            for _ in range(2):
                prefill(loaded.model, inputs)
                after = found[SITE]
                changed = slice(None) if everywhere else slice(-1, None)
                assert torch.allclose(after[:, changed], expected[:, changed], atol=1e-5)
                assert not torch.equal(after[:, changed], before[:, changed])
                if not everywhere:
                    assert torch.equal(after[:, :-1], before[:, :-1])
                handle.new_prompt()
    with capture(loaded.model, [SITE], "all") as found:
        prefill(loaded.model, inputs)
        assert torch.equal(found[SITE], before), "the model is as it was"


def test_what_is_generated_is_edited_too(loaded: Loaded, forget: Rows, retain: Rows) -> None:
    read = [read_activations(loaded, [row.prompt for row in rows]) for rows in (forget, retain)]
    made = Leace((1,)).fit(*read, people=["a"] * len(forget))
    seen: list[torch.Tensor] = []
    with made.attach(loaded.model) as handle:
        edit = handle.edit_at(SITE)
        for width in (5, 3, 1):
            stream = torch.randn(2, width, read[0][SITE].shape[1], generator=torch.Generator().manual_seed(width))
            seen.append((edit(stream) != stream).any(dim=-1)[0])
    assert seen[0].tolist() == [False] * 4 + [True]
    assert seen[1].all() and seen[2].all()


def test_attached_it_takes_answers_about_the_forgotten_and_leaves_the_retained(
    learned: Loaded, forget: Rows, retain: Rows
) -> None:
    """With ten times as many retained rows, so that the mean, which a map leaves where it is, is nearly theirs."""
    gone, kept = (read_activations(learned, [row.prompt for row in rows]) for rows in (forget, retain))
    many = {site: values.repeat(10, 1) for site, values in kept.items()}
    made = Leace((5,)).fit(gone, many, people=["a"] * len(forget))
    lost, spared = (-gained(learned, rows, lambda: made.attach(learned.model)).mean() for rows in (forget, retain))
    assert lost > 0.1
    assert abs(spared) < 0.1 * lost


def test_a_name_for_every_row() -> None:
    with pytest.raises(ValueError, match="there are 2 for 60 rows"):
        Leace((1,)).fit(streams(60, 6, 0), streams(9, 6, 1), ["a", "b"])


def test_the_maps_follow_the_stream_to_its_device() -> None:
    """They are fitted on the CPU, where activations are kept; `meta` stands for any other device."""
    g = torch.Generator().manual_seed(0)
    site = HookSite(0, "output")
    forget, retain = torch.randn(20, 6, generator=g) + 1, torch.randn(40, 6, generator=g)
    made = Leace((0,), "forget", everywhere=True).fit({site: forget}, {site: retain}, ["a"] * 20)
    handle = Scrubbing(made.maps, everywhere=True)
    there = handle.edit_at(site)(torch.empty(2, 3, 6, device="meta"))
    assert there.device.type == "meta" and there.shape == (2, 3, 6)
    here = handle.edit_at(site)(retain[None])
    assert torch.equal(here, made.maps[site](retain[None]))
