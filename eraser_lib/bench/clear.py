"""CLEAR (arXiv 2410.18057): 200 fictitious authors with pictures and questions, read into the same records.

    python -m eraser_lib.bench.clear CLEAR/forget05 --to forget     as a folder for `eraser fit --forget`
    python -m eraser_lib.bench.clear CLEAR/retain95 --to retain     and for `--retain`

Its rows are of three kinds, told by their columns: a question with `options` (real faces, the real world), a picture
with a `caption` and a `name`, and a `question` with an `answer` in words. No column is in all of its parts.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandera.pandas as pa

from eraser_lib.bench.protocols import ZERO_SHOT
from eraser_lib.bench.reader import SchemaError
from eraser_lib.bench.records import Modality, Picture, Prompt, Question, Role, Stored, Subset
from eraser_lib.bench.schema import cells, check_whole, is_picture, read_table, validate
from eraser_lib.bench.written import check_free, write_questions

HUB = "therem/CLEAR"
FETCH = (
    "Where there is a network:\n"
    f"    hf download {HUB} --repo-type dataset --local-dir CLEAR\n"
    "It fetches all parts with their pictures, each a folder of parquet files: CLEAR/forget01, forget05 and forget10, "
    "CLEAR/retain99, retain95 and retain90, CLEAR/real_faces, CLEAR/real_world and others. Then copy CLEAR here and "
    "pass the path of a part."
)
DESCRIBE = "Who is in this picture, and what can be seen?"
NAME = "What is the name of the person in the image?"
TEXT = ("name", "caption", "question", "answer")
TEXTS = (
    "options", "perturbed_names", "perturbed_captions", "perturbed_answer", "paraphrased_answer", "paraphrased_caption",
)  # fmt: skip
"""Columns that hold one text or several."""
LETTERS = "ABCDEF"
CHOICES = {"options": 6, "perturbed_names": 5}
"""Those of them that a question lets choose from, by six letters; the right name stands beside the others."""


def read_clear(path: Path, subset: Subset, *, role: Role = "test", seed: int = 0) -> list[Question]:
    """The questions of a part of CLEAR: a parquet file, or a folder of shards.

    A picture with a caption gives a question to describe it and, where other names are listed (`perturbed_names`), one
    to choose the name. The right answer is put among the options where the benchmark lists the others alone, as its
    evaluations do, and takes the place of one that says the same in other capitals; the seed shuffles them. Captions
    and answers that were changed in one fact (`perturbed_captions`, `perturbed_answer`) and paraphrases go into the
    truth ratio.

    Raises:
        FileNotFoundError: no such file, or a folder without shards; says what to fetch, or what the folder has.
        SchemaError: a folder without some of its shards, a part without rows, a cell that is not what its column should
            hold, too many or too few options, or a row of none of the three kinds; names them.
    """
    _check_there(path)
    rng = random.Random(f"clear-{seed}")
    found: list[Question] = []
    frame = read_table(path)
    validate(frame, SCHEMA, f"{path.name} is not CLEAR as it was published")
    for number, row in enumerate(frame.to_dict("records")):
        try:
            made = list(_row({str(key): value for key, value in row.items()}, rng))
        except ValueError as error:
            raise SchemaError(f"{path.name}, row {number}, {error}") from error
        if not made:
            raise SchemaError(
                f"{path.name}, row {number}: neither a question with an answer nor a picture with a caption; it has "
                f"{', '.join(sorted(str(key) for key, value in row.items() if not _empty(value)))}"
            )
        found += [
            Question(id=f"{path.stem}/{number}/{kind}", subset=subset, role=role, **fields) for kind, fields in made
        ]
    return found


def _check_there(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"there is no file or folder {path}. {FETCH}")
    if path.is_dir() and not any(path.glob("*.parquet")):
        found = ", ".join(sorted(one.name for one in path.iterdir() if not one.name.startswith("."))) or "nothing"
        raise FileNotFoundError(f"{path} holds no parquet files; pass the path of a part. It holds {found}")
    check_whole(path, FETCH)  # a file that is passed by itself is one shard, as was asked for


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
        if options := _texts(row.get("options")):
            yield "choice", {**shared, **_choice("options", str(question), str(answer), options, image, rng)}
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
        yield "name", {**shared, "attribute": "name", **_choice("perturbed_names", NAME, person, others, image, rng)}


def _choice(
    column: str, question: str, answer: str, others: Iterable[str], image: Picture | None, rng: random.Random
) -> dict[str, Any]:
    options = [*(other for other in others if _said(other) != _said(answer)), answer]
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError(
            f"column {column}: {len(options)} to choose from with the right answer {answer!r}; there must be 2 to "
            f"{len(LETTERS)}. Mend the file, or fetch it again"
        )
    rng.shuffle(options)
    return {
        "task": "classification", "prompt": Prompt(ZERO_SHOT.classification(question, tuple(options)), image),
        "answer": LETTERS[options.index(answer)], "fact": answer, "options": tuple(options),
    }  # fmt: skip


def _said(option: str) -> str:
    """What an option says, however it is written."""
    return option.strip().rstrip(".").casefold()


def _image(cell: Any) -> Stored | None:
    if _empty(cell):
        return None
    return Stored(cell["bytes"])


def _texts(cell: Any) -> tuple[str, ...]:
    if _empty(cell):
        return ()
    return (cell,) if isinstance(cell, str) else tuple(str(text) for text in cell)


def _empty(cell: Any) -> bool:
    """Whether a cell holds nothing: parquet gives None, NaN, or an empty text or list."""
    if cell is None or (isinstance(cell, float) and cell != cell):
        return True
    return hasattr(cell, "__len__") and len(cell) == 0


def main() -> None:
    """Parse the command line, write a part, and say what was written and who takes it."""
    parser = argparse.ArgumentParser(description="A part of CLEAR as a folder for `eraser fit` and `eraser verify`.")
    parser.add_argument("part", type=Path, help="a parquet file or a folder of shards, such as CLEAR/forget05")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a new or an empty folder")
    parser.add_argument("--subset", choices=("forget", "retain"), help="whom it is about; by default, as it is called")
    parser.add_argument("--seed", type=int, default=0, help="shuffles the options of a question that has some")
    options = parser.parse_args()
    # a shard is called train-..., and its folder as the part
    called = (options.part.name, options.part.absolute().parent.name if options.part.is_file() else "")
    about_forgotten = any(name.startswith("forget") for name in called)
    subset: Subset = options.subset or ("forget" if about_forgotten else "retain")
    check_free(options.to)  # told before the pictures are read, which takes long
    done = write_questions(read_clear(options.part, subset, seed=options.seed), options.to)
    print(
        f"{options.to}: {done.questions} questions about {done.people} people with names, {done.pictures} pictures\n"
        f"for eraser fit and eraser verify: --{subset} {done.path}"
    )


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:  # no such part, one of another form, a folder that is in use
        raise SystemExit(f"Error: {error}") from None
