"""What every reader produces and everything else consumes: prompts and questions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

Modality = Literal["vqa", "qa"]
Task = Literal["classification", "cloze", "generation"]
Role = Literal["fit", "select", "calibrate", "test"]
Subset = Literal[
    "forget", "test", "retain", "celebrity", "dev", "stranger", "benign", "forbidden", "general", "same_photo"
]


@dataclass(frozen=True)
class Prompt:
    """What a user sends: a text, perhaps an image, perhaps a system instruction.

    The text carries no chat markup and no image placeholder; the model family adds both.
    """

    text: str
    image: Image.Image | None = field(default=None, compare=False, repr=False)
    system: str | None = None
    shots: tuple[Prompt, ...] = field(default=(), repr=False)
    """Examples that are shown first, each with its answer in its text; see `eraser_lib.bench.protocols`."""

    @property
    def images(self) -> list[Image.Image]:
        """The images of the examples and the prompt's own, in the order in which they are shown."""
        shown = [shot.image for shot in (*self.shots, self)]
        return [image for image in shown if image is not None]


@dataclass(frozen=True)
class Question:
    """One question with everything that is needed to ask it and to score the answer."""

    id: str
    """Stable over runs, unique within a world: person, subset, modality, task, attribute, view, wording."""
    subset: Subset
    role: Role
    modality: Modality
    task: Task
    prompt: Prompt
    answer: str
    """The ground truth as the benchmark gives it: a letter, the masked words, or a sentence. For `forbidden`
    it is one refusal of the grammar; any refusal counts as right there."""
    person: str | None = None
    """Identifier of the person asked about, `None` for general, benign and forbidden questions."""
    attribute: str | None = None
    """Name of the fact, e.g. `occupation`."""
    fact: str | None = None
    """The exact fact that must appear in a right answer, e.g. `baker`."""
    options: tuple[str, ...] = ()
    """Classification only: the option texts in the order A, B, C, D."""
    wrong: tuple[str, ...] = ()
    """At least three answers like `answer` with one fact changed (generation), for the truth ratio."""
    paraphrase: str | None = None
    """A paraphrase of `answer` (generation), for the truth ratio."""
    view: int | None = None
    wording: int = 0
    refusal: bool = False
    """Whether refusing is the right answer."""

    @property
    def letter(self) -> str | None:
        """The right letter of a classification question."""
        return self.answer if self.task == "classification" else None
