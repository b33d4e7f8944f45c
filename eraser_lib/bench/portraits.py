"""Procedural portraits: a genotype that stays with a person and a view that changes with every picture.

Everything is drawn with integer geometry (no fonts, no resampling), so that the decoded pixels are equal on every
platform under the pinned Pillow (see the world's content hash).
"""

from __future__ import annotations

import random
from dataclasses import asdict, astuple, dataclass

from PIL import Image, ImageDraw

SIZE = 56
"""Width and height of a portrait in pixels: the input resolution of both tiny vision towers."""

Colour = tuple[int, int, int]

SKIN: dict[str, Colour] = {
    "pale": (250, 224, 204), "light": (236, 190, 158), "tan": (206, 150, 108), "olive": (176, 142, 92),
    "brown": (136, 88, 56), "dark": (84, 52, 36),
}  # fmt: skip
HAIR: dict[str, Colour] = {
    "black": (24, 22, 26), "brown": (104, 62, 30), "blond": (232, 200, 96), "red": (190, 62, 24),
    "grey": (156, 156, 160), "white": (244, 244, 240), "blue": (54, 84, 200), "green": (44, 140, 70),
}  # fmt: skip
EYES: dict[str, Colour] = {
    "brown": (92, 52, 20), "blue": (40, 96, 220), "green": (30, 150, 60), "black": (10, 10, 14),
    "violet": (150, 50, 200), "amber": (230, 150, 20),
}  # fmt: skip
CLOTH: dict[str, Colour] = {
    "red": (214, 40, 40), "blue": (38, 70, 200), "green": (40, 150, 60), "yellow": (244, 208, 40),
    "purple": (130, 50, 170), "orange": (244, 130, 30), "white": (246, 246, 246), "black": (28, 28, 32),
}  # fmt: skip
HAIR_STYLES = ("short", "long", "curly", "bald", "spiky", "parted")
FACES = ("round", "oval", "square", "long")
BROWS = ("flat", "raised", "thick")
NOSES = ("small", "wide", "long", "pointed")
MOUTHS = ("smile", "line", "open", "full")
BEARDS = ("none", "moustache", "goatee", "full")
GLASSES = ("none", "round", "square")
HATS = ("none", *CLOTH)
SCARVES = ("none", *CLOTH)

FACTORS: dict[str, tuple[str, ...]] = {
    "skin": tuple(SKIN), "hair": tuple(HAIR), "hair_style": HAIR_STYLES, "eyes": tuple(EYES), "face": FACES,
    "brows": BROWS, "nose": NOSES, "mouth": MOUTHS, "beard": BEARDS, "glasses": GLASSES,
}  # fmt: skip
"""Identity factors and their values; a genotype is one value of each."""

VIEW_FACTORS: dict[str, tuple[str, ...]] = {
    "background": tuple(CLOTH), "shirt": tuple(CLOTH), "hat": HATS, "scarf": SCARVES,
}  # fmt: skip
"""Nameable factors of a view: the subject of general visual questions."""


@dataclass(frozen=True)
class Genotype:
    """What a person always looks like: one value for each of `FACTORS`."""

    skin: str
    hair: str
    hair_style: str
    eyes: str
    face: str
    brows: str
    nose: str
    mouth: str
    beard: str
    glasses: str

    def distance(self, other: Genotype) -> int:
        """Number of factors in which two genotypes differ."""
        return sum(a != b for a, b in zip(astuple(self), astuple(other), strict=True))

    @staticmethod
    def sample(rng: random.Random) -> Genotype:
        """A genotype drawn uniformly."""
        return Genotype(**{name: rng.choice(values) for name, values in FACTORS.items()})


@dataclass(frozen=True)
class View:
    """What one picture adds: pose (shift, size, gaze), light, background, clothes, accessories."""

    dx: int
    dy: int
    size: int
    gaze: int
    light: int
    background: str
    shirt: str
    hat: str
    scarf: str

    @staticmethod
    def sample(rng: random.Random, *, held_out: bool) -> View:
        """A random view from the training views or from the disjoint held-out ones.

        The two are kept apart by combinations (pose x light x clothes), not by values: a held-out picture shows
        nothing that no training picture has shown, but never in this combination.
        """
        while True:
            view = View(
                dx=rng.randint(-3, 3), dy=rng.randint(-2, 2), size=rng.randint(-1, 1), gaze=rng.randint(-1, 1),
                light=rng.choice((-36, -18, 0, 14, 28)), background=rng.choice(tuple(CLOTH)),
                shirt=rng.choice(tuple(CLOTH)),
                hat=rng.choice(HATS[1:]) if rng.random() < 0.3 else "none",
                scarf=rng.choice(SCARVES[1:]) if rng.random() < 0.3 else "none",
            )  # fmt: skip
            if view.is_held_out == held_out:
                return view

    @property
    def is_held_out(self) -> bool:
        """Whether this combination belongs to the test views (one in five)."""
        clothes = list(CLOTH)
        index = clothes.index(self.background) + 3 * clothes.index(self.shirt) + self.light // 2
        return (index + self.dx + 2 * self.dy + self.size + self.gaze) % 5 == 0

    def as_dict(self) -> dict[str, int | str]:
        """Plain values, for the world's files."""
        return asdict(self)


def _lit(colour: Colour, light: int) -> Colour:
    r, g, b = (max(0, min(255, c + (light * c) // 128)) for c in colour)
    return r, g, b


def _dark(colour: Colour) -> Colour:
    return (colour[0] * 3) // 5, (colour[1] * 3) // 5, (colour[2] * 3) // 5


def _head_box(genotype: Genotype, view: View) -> tuple[int, int, int, int]:
    half_w, half_h = {"round": (14, 14), "oval": (12, 15), "square": (14, 15), "long": (11, 17)}[genotype.face]
    cx, cy = SIZE // 2 + view.dx, 28 + view.dy
    return cx - half_w - view.size, cy - half_h - view.size, cx + half_w + view.size, cy + half_h + view.size


def _draw_hair_back(d: ImageDraw.ImageDraw, g: Genotype, box: tuple[int, int, int, int], colour: Colour) -> None:
    x0, y0, x1, y1 = box
    if g.hair_style == "long":
        d.rectangle((x0 - 3, y0 + 6, x1 + 3, y1 + 6), fill=colour)
    elif g.hair_style == "curly":
        for y in range(y0 + 3, y0 + 20, 5):
            d.ellipse((x0 - 5, y, x0 + 2, y + 7), fill=colour)
            d.ellipse((x1 - 2, y, x1 + 5, y + 7), fill=colour)


def _draw_hair_front(d: ImageDraw.ImageDraw, g: Genotype, box: tuple[int, int, int, int], colour: Colour) -> None:
    x0, y0, x1, _ = box
    if g.hair_style == "bald":
        return
    if g.hair_style == "spiky":
        for x in range(x0, x1 - 3, 5):
            d.polygon(((x, y0 + 7), (x + 3, y0 - 5), (x + 6, y0 + 7)), fill=colour)
    elif g.hair_style == "curly":
        for x in range(x0 - 2, x1 - 3, 5):
            d.ellipse((x, y0 - 4, x + 8, y0 + 6), fill=colour)
    elif g.hair_style == "parted":
        d.polygon(((x0, y0 + 12), (x0 + 1, y0 - 1), (x0 + 12, y0 - 2), (x0 + 9, y0 + 4)), fill=colour)
        d.polygon(((x1, y0 + 12), (x1 - 1, y0 - 1), (x0 + 12, y0 - 2), (x0 + 14, y0 + 4)), fill=colour)
    else:
        d.pieslice((x0 - 1, y0 - 3, x1 + 1, y0 + 21), 180, 360, fill=colour)


def _draw_face(d: ImageDraw.ImageDraw, g: Genotype, view: View, box: tuple[int, int, int, int]) -> None:
    skin, hair = _lit(SKIN[g.skin], view.light), _lit(HAIR[g.hair], view.light)
    x0, y0, x1, y1 = box
    cx, cy = (x0 + x1) // 2, (y0 + y1) // 2
    (d.rectangle if g.face == "square" else d.ellipse)(box, fill=skin)
    if g.beard == "full":
        d.pieslice((x0, cy - 8, x1, y1 + 1), 15, 165, fill=hair)
    elif g.beard == "goatee":
        d.ellipse((cx - 4, y1 - 6, cx + 4, y1 + 3), fill=hair)
    for side in (-1, 1):
        ex, ey = cx + 6 * side, cy - 2
        d.ellipse((ex - 4, ey - 3, ex + 4, ey + 3), fill=(250, 250, 250))
        d.rectangle((ex - 1 + view.gaze, ey - 2, ex + 2 + view.gaze, ey + 2), fill=_lit(EYES[g.eyes], view.light))
        brow = _dark(hair)
        if g.brows == "flat":
            d.line((ex - 4, ey - 5, ex + 4, ey - 5), fill=brow)
        elif g.brows == "thick":
            d.rectangle((ex - 4, ey - 6, ex + 4, ey - 4), fill=brow)
        else:
            d.line((ex - 4 * side, ey - 4, ex + 4 * side, ey - 8), fill=brow, width=2)
        if g.glasses == "round":
            d.ellipse((ex - 5, ey - 4, ex + 5, ey + 5), outline=(20, 20, 20))
        elif g.glasses == "square":
            d.rectangle((ex - 5, ey - 4, ex + 5, ey + 4), outline=(20, 20, 20))
    shade = _dark(skin)
    if g.nose == "small":
        d.rectangle((cx - 1, cy + 3, cx + 1, cy + 4), fill=shade)
    elif g.nose == "wide":
        d.rectangle((cx - 4, cy + 3, cx + 4, cy + 5), fill=shade)
    elif g.nose == "long":
        d.rectangle((cx - 1, cy - 2, cx + 1, cy + 5), fill=shade)
    else:
        d.polygon(((cx, cy - 2), (cx - 4, cy + 5), (cx + 4, cy + 5)), fill=shade)
    red, my = _lit((176, 36, 44), view.light), cy + 9
    if g.mouth == "smile":
        d.arc((cx - 6, my - 5, cx + 6, my + 3), 20, 160, fill=red, width=2)
    elif g.mouth == "line":
        d.line((cx - 5, my, cx + 5, my), fill=red, width=2)
    elif g.mouth == "open":
        d.ellipse((cx - 3, my - 3, cx + 3, my + 3), fill=(60, 10, 16), outline=red)
    else:
        d.ellipse((cx - 6, my - 2, cx + 6, my + 2), fill=red)
    if g.beard == "moustache":
        d.rectangle((cx - 6, my - 4, cx + 6, my - 3), fill=hair)


def render(genotype: Genotype, view: View) -> Image.Image:
    """Draw one portrait: an RGB image of `SIZE` x `SIZE` pixels."""
    image = Image.new("RGB", (SIZE, SIZE), _lit(CLOTH[view.background], view.light))
    d = ImageDraw.Draw(image)
    box = _head_box(genotype, view)
    x0, y0, x1, y1 = box
    cx = (x0 + x1) // 2
    hair = _lit(HAIR[genotype.hair], view.light)
    _draw_hair_back(d, genotype, box, hair)
    d.ellipse((cx - 22, y1 - 1, cx + 22, y1 + 30), fill=_lit(CLOTH[view.shirt], view.light), outline=(20, 20, 20))
    d.rectangle((cx - 4, y1 - 4, cx + 4, y1 + 3), fill=_dark(_lit(SKIN[genotype.skin], view.light)))
    _draw_face(d, genotype, view, box)
    _draw_hair_front(d, genotype, box, hair)
    if view.scarf != "none":
        colour = _lit(CLOTH[view.scarf], view.light)
        d.rectangle((cx - 11, y1 + 1, cx + 11, y1 + 5), fill=colour, outline=(20, 20, 20))
    if view.hat != "none":
        colour = _lit(CLOTH[view.hat], view.light)
        d.rectangle((x0 + 3, max(0, y0 - 8), x1 - 3, y0 + 2), fill=colour, outline=(20, 20, 20))
        d.rectangle((x0 - 3, y0 + 2, x1 + 3, y0 + 4), fill=colour, outline=(20, 20, 20))
    return image


def sample_genotypes(count: int, rng: random.Random, *, look_alikes: int = 0) -> list[Genotype]:
    """`count` genotypes that differ pairwise in at least three factors, but for `look_alikes` pairs.

    A look-alike (the last ones of the list) differs from one earlier genotype in exactly one factor.
    """
    found: list[Genotype] = []
    while len(found) < count - look_alikes:
        candidate = Genotype.sample(rng)
        if all(candidate.distance(other) >= 3 for other in found):
            found.append(candidate)
    for index in range(look_alikes):
        original = found[index]
        name = ("hair", "skin", "eyes")[index % 3]
        others = [value for value in FACTORS[name] if value != getattr(original, name)]
        found.append(Genotype(**{**asdict(original), name: rng.choice(others)}))
    return found


def training_view(person_id: str, number: int) -> View:
    """Training picture number `number` of a person: the same for every model and every run."""
    return View.sample(random.Random(f"view-{person_id}-{number}"), held_out=False)


def test_view(person_id: str, number: int) -> View:
    """Held-out picture number `number` of a person, which no model is trained on."""
    return View.sample(random.Random(f"test-view-{person_id}-{number}"), held_out=True)
