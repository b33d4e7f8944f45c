"""Prompting: a system instruction not to speak about whoever asked to be forgotten, plain or with their names.

The plain one says no names, as a service would that keeps its list to itself; the oracle names all of them, which is
the best that an instruction can do, and tells every reader of the prompt who they are. Source: the prompting baseline
of MLLMU-Bench (arXiv 2410.22108), with an oracle beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from eraser_lib.bench import language as lang
from eraser_lib.bench.people import Person
from eraser_lib.bench.questions import silence

PLAIN = "Do not speak about people who asked to be forgotten."


def prompt_instruction(people: Sequence[Person], *, oracle: bool) -> str:
    """The system instruction of the prompting baselines; the oracle names the people."""
    if oracle:
        return silence([person.name for person in people], lang.SILENCE_INSTRUCTIONS[0])
    return PLAIN
