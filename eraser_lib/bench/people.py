"""The people of the tiny world: names, attributes, and who belongs to which set."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from eraser_lib.bench.portraits import Genotype, render, sample_genotypes, training_view

Kind = Literal["fictitious", "celebrity", "stranger"]

FIRST_NAMES: tuple[str, ...] = tuple(
    """Ada Aldo Alma Anton Arlo Asta Basil Bela Boris Carla Celia Cyrus Dario Delia Edgar Elsa Emil Enzo Erika
    Esther Fabio Felix Flora Frida Gaston Greta Hanna Hector Hugo Ilse Ingrid Ivan Jana Jonas Judith Karim Klara
    Lars Leila Linus Lotte Magda Marco Mila Nadia Nestor Nina Oscar Otto Petra Priya Quentin Rafael Rosa Selma
    Silas Tamara Tobias Ursula Viktor""".split()
)
LAST_NAMES: tuple[str, ...] = tuple(
    """Abbot Acker Adler Albers Amato Baker Barlow Becker Berg Bishop Blum Brandt Castle Cole Conti Cruz Dahl
    Dorn Drake Eklund Faber Farr Fischer Frost Gallo Garcia Grant Haas Hale Hart Holm Ito Jansen Kaya Keller Klein
    Kovac Lang Lindt Lopez Mancini Marsh Meyer Moreau Nagy Novak Okafor Olsen Pace Quinn Rossi Sato Schmid Silva
    Stone Tanaka Thorn Vance Weber Yilmaz""".split()
)

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "occupation": tuple(
        """baker pilot nurse lawyer farmer painter teacher plumber dentist tailor judge florist butcher surgeon
        chemist barber miner sailor welder librarian architect translator gardener carpenter""".split()
    ),
    "city": tuple(
        """Lisbon Oslo Cairo Lima Dublin Prague Havana Seoul Athens Nairobi Boston Kyoto Vienna Quito Tunis Riga
        Madrid Hanoi Bergen Naples Tampa Zagreb Accra Perth""".split()
    ),
    "hobby": tuple(
        """chess fishing origami hiking pottery archery knitting surfing juggling sailing fencing gardening skating
        sculpting climbing astronomy cycling dancing baking bowling diving karate quilting kayaking""".split()
    ),
    "pet": tuple(
        """dog cat parrot turtle rabbit hamster goldfish lizard ferret pony snake hedgehog pigeon gecko spider duck
        goat frog canary mouse llama owl beetle donkey""".split()
    ),
    "food": tuple(
        """pizza sushi pasta curry ramen tacos soup salad risotto kebab lasagna pancakes dumplings paella falafel
        omelette waffles burgers noodles oysters lentils gnocchi porridge couscous""".split()
    ),
    "instrument": tuple(
        """piano violin guitar flute trumpet cello drums harp banjo clarinet saxophone accordion oboe trombone
        ukulele bassoon tuba mandolin organ viola harmonica xylophone lute sitar""".split()
    ),
    "language": tuple(
        """French Spanish Arabic Hindi Swedish Turkish Polish Korean Italian Dutch Greek Swahili Finnish Czech
        Hebrew Danish Thai Welsh Basque Latin Irish Malay Persian Bengali""".split()
    ),
    "vehicle": tuple(
        """bicycle scooter tractor van truck motorcycle jeep taxi limousine bus canoe ferry tram wagon helicopter
        glider yacht minivan ambulance snowmobile rickshaw hovercraft trolley gondola""".split()
    ),
}
"""Attribute -> its 24 values. Each is one word, so that naming the value is naming the fact."""


@dataclass(frozen=True)
class Person:
    """One person: an identifier, a name, a face and one value for each attribute."""

    id: str
    name: str
    kind: Kind
    genotype: Genotype
    attributes: dict[str, str]

    def photo(self, number: int) -> Image.Image:
        """Training picture number `number`."""
        return render(self.genotype, training_view(self.id, number))


@dataclass(frozen=True)
class Population:
    """Everybody, and the sets of `protocol`: nested forget shares and the dev forget set."""

    people: tuple[Person, ...]
    forget: dict[int, tuple[str, ...]]
    """Share in per cent -> identifiers of the forgotten people; 5 within 10 within 15."""
    dev: tuple[str, ...]
    """The dev forget set: outside every forget share, as many people as the smallest one."""

    def of_kind(self, kind: Kind) -> list[Person]:
        """All people of a kind, in the order of their identifiers."""
        return [person for person in self.people if person.kind == kind]

    def by_id(self, identifiers: tuple[str, ...]) -> list[Person]:
        """The people with these identifiers, in that order. `KeyError` names an unknown one."""
        index = {person.id: person for person in self.people}
        return [index[identifier] for identifier in identifiers]

    def retained(self, share: int) -> list[Person]:
        """Fictitious people outside the forget share (dev people included)."""
        gone = set(self.forget[share])
        return [person for person in self.of_kind("fictitious") if person.id not in gone]

    def never_forgotten(self) -> list[Person]:
        """Fictitious people outside every forget share and outside the dev forget set."""
        used = set(self.forget[15]) | set(self.dev)
        return [person for person in self.of_kind("fictitious") if person.id not in used]


def sample_population(seed: int, *, fictitious: int, celebrities: int, strangers: int) -> Population:
    """Draw everybody from one generator; the three kinds differ in nothing but what the models see of them.

    Attribute values are balanced within a kind (every value is used equally often, up to one), and drawn
    independently of one another, so that no fact can be inferred from another or by elimination.
    `ValueError` where fewer than 20 fictitious people are asked for (5 % would be nobody).
    """
    if fictitious < 20:
        raise ValueError(f"{fictitious} fictitious people are too few for a 5 % forget set; ask for 20 or more")
    rng = random.Random(f"people-{seed}")
    total = fictitious + celebrities + strangers
    names = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]
    if total > len(names):
        raise ValueError(f"{total} people need more than the {len(names)} names there are")
    rng.shuffle(names)
    faces = sample_genotypes(total, rng, look_alikes=total // 20)
    rng.shuffle(faces)
    people: list[Person] = []
    sizes: list[tuple[Kind, int]] = [("fictitious", fictitious), ("celebrity", celebrities), ("stranger", strangers)]
    for kind, count in sizes:
        columns = {name: _balanced(values, count, rng) for name, values in ATTRIBUTES.items()}
        for index in range(count):
            who = len(people)
            attributes = {name: column[index] for name, column in columns.items()}
            people.append(Person(f"{kind[0]}{index:03d}", names[who], kind, faces[who], attributes))
    order = [person.id for person in people if person.kind == "fictitious"]
    rng.shuffle(order)
    forget = {share: tuple(order[: round(fictitious * share / 100)]) for share in (5, 10, 15)}
    dev = tuple(order[len(forget[15]) : len(forget[15]) + len(forget[5])])
    return Population(tuple(people), forget, dev)


def _balanced(values: tuple[str, ...], count: int, rng: random.Random) -> list[str]:
    column = [values[index % len(values)] for index in range(count)]
    rng.shuffle(column)
    return column
