"""CLEAR (arXiv 2410.18057): 200 fictitious authors with pictures and questions, read into the same records.

Its rows are of three kinds, told by their columns: a question with `options` (real faces, the real world), a picture
with a `caption` and a `name`, and a `question` with an `answer` in words. No column is in all of its parts.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa
from PIL import Image

from eraser_lib.bench.protocols import ZERO_SHOT
from eraser_lib.bench.reader import SchemaError
from eraser_lib.bench.records import Modality, Prompt, Question, Role, Subset
from eraser_lib.bench.schema import cells, is_picture, validate

HUB = "therem/CLEAR"
DESCRIBE = "Who is in this picture, and what can be seen?"
NAME = "What is the name of the person in the image?"
TEXT = ("name", "caption", "question", "answer")
TEXTS = (
    "options", "perturbed_names", "perturbed_captions", "perturbed_answer", "paraphrased_answer", "paraphrased_caption",
)  # fmt: skip
"""Columns that hold one text or several."""
CHOICES = {"options": 6, "perturbed_names": 5}
"""Those of them that a question lets choose from, by six letters; the right name stands beside the others."""


def read_clear(path: Path, subset: Subset, *, role: Role = "test", seed: int = 0) -> list[Question]:
    """The questions of a part of CLEAR: a parquet file, or a folder of shards.

    A picture with a caption gives a question to describe it and, where other names are listed (`perturbed_names`), one
    to choose the name. Options are shuffled by the seed. Captions and answers that were changed in one fact
    (`perturbed_captions`, `perturbed_answer`) and paraphrases go into the truth ratio.

    Raises:
        FileNotFoundError: no such file.
        SchemaError: a cell that is not what its column should hold, or a row of none of the three kinds; names them.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"no file {path}. Where there is a network: hf download {HUB} --repo-type dataset --local-dir CLEAR"
        )
    rng = random.Random(f"clear-{seed}")
    found: list[Question] = []
    frame = pd.read_parquet(path)
    validate(frame, SCHEMA, f"{path.name} is not CLEAR as it was published")
    for number, row in enumerate(frame.to_dict("records")):
        made = list(_row({str(key): value for key, value in row.items()}, rng))
        if not made:
            raise SchemaError(
                f"{path.name}, row {number}: neither a question with an answer nor a picture with a caption; it has "
                f"{', '.join(sorted(str(key) for key, value in row.items() if not _empty(value)))}"
            )
        found += [
            Question(id=f"{path.stem}/{number}/{kind}", subset=subset, role=role, **fields) for kind, fields in made
        ]
    return found


def _is_texts(cell: Any, most: int | None = None) -> bool:
    if isinstance(cell, str):
        return True
    return (
        not isinstance(cell, Mapping)
        and all(isinstance(text, str) for text in cell)
        and (most is None or len(cell) <= most)
    )


_SOME: dict[str, Any] = {"nullable": True, "required": False}
SCHEMA = pa.DataFrameSchema(
    {
        "image": cells("is no picture with bytes that can be decoded", is_picture, **_SOME),
        **{name: cells("is no text", lambda cell: isinstance(cell, str), **_SOME) for name in TEXT},
        **{name: cells("is no text and no list of texts", _is_texts, **_SOME) for name in TEXTS},
        **{
            name: cells(f"is no text and no list of {most} texts or fewer", partial(_is_texts, most=most), **_SOME)
            for name, most in CHOICES.items()
        },
    },
    strict=False,
)
"""What the columns hold, where a part has them and a row fills them."""


def _row(row: Mapping[str, Any], rng: random.Random) -> Iterable[tuple[str, dict[str, Any]]]:
    image = _image(row.get("image"))
    person = None if _empty(row.get("name")) else str(row["name"])
    modality: Modality = "qa" if image is None else "vqa"
    shared = {"modality": modality, "person": person}
    question, answer = row.get("question"), row.get("answer")
    if _empty(question) and image is not None and not _empty(row.get("options")):
        question = NAME  # real faces come with names to choose from and without a question
    if not _empty(question) and not _empty(answer):
        options = [] if _empty(row.get("options")) else [str(option) for option in row["options"]]
        if options:
            yield "choice", {**shared, **_choice(str(question), str(answer), options, image, rng)}
        else:
            yield "question", {
                **shared, "task": "generation", "answer": str(answer), "wrong": _texts(row.get("perturbed_answer")),
                "prompt": Prompt(ZERO_SHOT.generation(str(question), modality), image),
                "paraphrase": next(iter(_texts(row.get("paraphrased_answer"))), None),
            }  # fmt: skip
        return
    if image is None or _empty(row.get("caption")):
        return
    yield "caption", {
        **shared, "task": "generation", "prompt": Prompt(DESCRIBE, image), "answer": str(row["caption"]),
        "fact": person, "attribute": None if person is None else "name",
        "wrong": _texts(row.get("perturbed_captions")),
        "paraphrase": next(iter(_texts(row.get("paraphrased_caption"))), None),
    }  # fmt: skip
    others = _texts(row.get("perturbed_names"))
    if person is not None and others:
        yield "name", {**shared, "attribute": "name", **_choice(NAME, person, list(others), image, rng)}


def _choice(
    question: str, answer: str, others: list[str], image: Image.Image | None, rng: random.Random
) -> dict[str, Any]:
    options = [*(other for other in others if other != answer), answer]
    rng.shuffle(options)
    return {
        "task": "classification", "prompt": Prompt(ZERO_SHOT.classification(question, tuple(options)), image),
        "answer": "ABCDEF"[options.index(answer)], "fact": answer, "options": tuple(options),
    }  # fmt: skip


def _image(cell: Any) -> Image.Image | None:
    if _empty(cell):
        return None
    return Image.open(io.BytesIO(cell["bytes"])).convert("RGB")


def _texts(cell: Any) -> tuple[str, ...]:
    if _empty(cell):
        return ()
    return (cell,) if isinstance(cell, str) else tuple(str(text) for text in cell)


def _empty(cell: Any) -> bool:
    """Whether a cell holds nothing: parquet gives None, NaN, or an empty text or list."""
    if cell is None or (isinstance(cell, float) and cell != cell):
        return True
    return hasattr(cell, "__len__") and len(cell) == 0
