"""What every reader produces and everything else consumes: prompts and questions."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, Literal

from PIL import Image

Modality = Literal["vqa", "qa"]
Task = Literal["classification", "cloze", "generation"]
Role = Literal["fit", "select", "calibrate", "test"]
Subset = Literal[
    "forget", "test", "retain", "celebrity", "dev", "stranger", "benign", "forbidden", "general", "same_photo"
]


@dataclass(frozen=True)
class Stored:
    """A picture as the bytes of its file, decoded when it is looked at: by the workers that prepare a batch, and not
    kept, since a thousand photographs would take gigabytes. Whoever converts or saves pictures can take it for one."""

    data: bytes = field(repr=False)
    where: str = ""
    """What errors call it, such as file, row and column."""

    def __post_init__(self) -> None:
        """`ValueError` for bytes that are no picture, as far as their beginning tells."""
        try:
            with Image.open(io.BytesIO(self.data)):
                pass
        except (TypeError, OSError) as error:
            raise ValueError(f"{self.where}: not a picture with bytes ({error})") from error

    def decode(self) -> Image.Image:
        """The picture as RGB. `ValueError` where the bytes break off."""
        try:
            with Image.open(io.BytesIO(self.data)) as file:
                return file.convert("RGB")
        except (OSError, SyntaxError) as error:  # the second is Pillow's for a chunk of a PNG that is broken
            raise ValueError(f"{self.where}: a picture that cannot be decoded ({error})") from error

    def convert(self, mode: str) -> Image.Image:
        """As of a PIL image."""
        return self.decode().convert(mode)

    def save(self, *target: Any, **options: Any) -> None:
        """As of a PIL image."""
        self.decode().save(*target, **options)


Picture = Image.Image | Stored


@dataclass(frozen=True)
class Prompt:
    """What a user sends: a text, perhaps an image, perhaps a system instruction.

    The text carries no chat markup and no image placeholder; the model family adds both.
    """

    text: str
    image: Picture | None = field(default=None, compare=False, repr=False)
    system: str | None = None
    shots: tuple[Prompt, ...] = field(default=(), repr=False)
    """Examples that are shown first, each with its answer in its text; see `eraser_lib.bench.protocols`."""

    @property
    def images(self) -> list[Image.Image]:
        """The images of the examples and the prompt's own, decoded, in the order in which they are shown."""
        shown = [shot.image for shot in (*self.shots, self)]
        return [image.decode() if isinstance(image, Stored) else image for image in shown if image is not None]


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
