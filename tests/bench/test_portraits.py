"""Portraits: equal pixels everywhere, every factor can be seen, training and test views never meet."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import pytest

from eraser_lib.bench import portraits
from eraser_lib.bench.portraits import FACTORS, SIZE, VIEW_FACTORS, Genotype, View, render

FACE = Genotype(
    skin="light", hair="brown", hair_style="short", eyes="blue", face="oval", brows="flat", nose="small",
    mouth="line", beard="none", glasses="none",
)  # fmt: skip
VIEW = View(dx=0, dy=0, size=0, gaze=0, light=0, background="green", shirt="red", hat="none", scarf="none")
DIGEST = "0c130d4cc7f0975b"


def test_pixels_are_equal_on_every_machine() -> None:
    """Sixty random pictures: a change here makes the shipped models stale."""
    rng = random.Random("portraits")
    digest = hashlib.sha256()
    for number in range(60):
        digest.update(render(Genotype.sample(rng), View.sample(rng, held_out=number % 2 == 0)).tobytes())
    assert digest.hexdigest()[:16] == DIGEST


def test_a_portrait_is_a_small_rgb_image() -> None:
    image = render(FACE, VIEW)
    assert (image.mode, image.size) == ("RGB", (SIZE, SIZE))
    assert image.tobytes() == render(FACE, VIEW).tobytes()


def _differing(a: bytes, b: bytes) -> int:
    return sum(a[i : i + 3] != b[i : i + 3] for i in range(0, len(a), 3))


@pytest.mark.parametrize("factor", FACTORS)
def test_every_identity_factor_can_be_seen(factor: str) -> None:
    # Short and long hair fall over the brows of most faces: brows are looked at on a bald head.
    face = replace(FACE, hair_style="bald") if factor == "brows" else FACE
    pictures = [render(replace(face, **{factor: value}), VIEW).tobytes() for value in FACTORS[factor]]
    for first in range(len(pictures)):
        for second in range(first):
            assert _differing(pictures[first], pictures[second]) >= 5, FACTORS[factor][first]


@pytest.mark.parametrize("factor", VIEW_FACTORS)
def test_every_view_factor_can_be_seen(factor: str) -> None:
    pictures = {render(FACE, replace(VIEW, **{factor: value})).tobytes() for value in VIEW_FACTORS[factor]}
    assert len(pictures) == len(VIEW_FACTORS[factor])


@pytest.mark.parametrize("change", [{"dx": 2}, {"dy": -2}, {"size": 1}, {"gaze": 1}, {"light": -36}])
def test_pose_and_light_change_the_picture(change: dict[str, int]) -> None:
    assert render(FACE, replace(VIEW, **change)).tobytes() != render(FACE, VIEW).tobytes()


def test_named_colours_are_the_drawn_ones() -> None:
    image = render(FACE, VIEW)
    assert image.getpixel((0, 0)) == portraits.CLOTH["green"]
    assert image.getpixel((SIZE // 2, SIZE - 2)) == portraits.CLOTH["red"]


def test_training_and_test_views_never_meet() -> None:
    for person in ("f000", "c001", "s002"):
        training = [portraits.training_view(person, number) for number in range(60)]
        testing = [portraits.test_view(person, number) for number in range(20)]
        assert not any(view.is_held_out for view in training)
        assert all(view.is_held_out for view in testing)
        assert not set(training) & set(testing)
        assert len(set(training)) > 55  # many views, so that people are learned and not pictures


def test_views_belong_to_a_person_and_a_number() -> None:
    assert portraits.training_view("f000", 3) == portraits.training_view("f000", 3)
    assert portraits.training_view("f000", 3) != portraits.training_view("f001", 3)
    assert VIEW.as_dict()["background"] == "green"


def test_every_value_of_a_view_is_on_both_sides() -> None:
    """Kept apart by combination: a model has met every value of a test view in training."""
    rng = random.Random(0)
    for held_out in (False, True):
        views = [View.sample(rng, held_out=held_out) for _ in range(600)]
        for factor, values in VIEW_FACTORS.items():
            assert {getattr(view, factor) for view in views} == set(values), factor


def test_look_alikes_differ_in_one_factor() -> None:
    faces = portraits.sample_genotypes(40, random.Random(0), look_alikes=5)
    assert len(faces) == 40
    for index, alike in enumerate(faces[35:]):
        assert alike.distance(faces[index]) == 1
    assert all(x.distance(y) >= 3 for n, x in enumerate(faces[:35]) for y in faces[:n])
