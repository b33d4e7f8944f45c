"""`eraser fit | ask | inspect | verify`."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from eraser_lib.cli import EXAMPLE

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Make a LLaVA-1.5 or Qwen2.5-VL model refuse about some people, without changing a weight. Everything is "
    "undone by not attaching the eraser. Start with `eraser fit --help`.",
)  # fmt: skip

Model = Annotated[str, typer.Argument(help="Folder of the model, or its name on the hub, also with @REVISION.")]
Saved = Annotated[Path, typer.Argument(help="Folder of the eraser, as `eraser fit` wrote it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...; auto spreads the model over all there are.")]
Dtype = Annotated[
    str, typer.Option(help="float32, bfloat16 or float16; or 8bit or 4bit, which bitsandbytes computes in bfloat16.")
]
Tokens = Annotated[
    int, typer.Option(help="Length of an answer in tokens, at most; what comes later is not looked at.", min=1)
]
Batch = Annotated[int, typer.Option(help="Prompts at a time; fewer need less memory.", min=1)]
Forget = Annotated[
    Path,
    typer.Option(
        help=f"Rows about the people to forget, a JSON object per line: {EXAMPLE} "
        "Or a folder of pictures with a people.yml that lists name, images and facts."
    ),
]
Retain = Annotated[Path, typer.Option(help="Rows about others who must not be touched, in the same form.")]

LITTLE = 0.5
"""Of less than this share of the forget rows set apart an eraser is not written without a warning."""
MORE_ROWS = "give more and more varied rows"
FAILED = 1
"""Exit code of a check that did not pass."""
WRONG = 2
"""Exit code of wrong input."""
CRASHED = 70
"""Exit code of a fault of this program, so that nobody takes it for a check that did not pass."""


@app.command()
def fit(
    model: Model,
    out: Annotated[Path, typer.Argument(help="Where to write the eraser: a folder.")],
    forget: Forget,
    retain: Retain,
    alpha: Annotated[float, typer.Option(help="Tolerated share of touched retained prompts.", min=0, max=1)] = 0.01,
    decide: Annotated[
        str, typer.Option(help="Blocks that decide, such as 20 or 26,27; chosen on rows set apart if empty.")
    ] = "",
    steer: Annotated[str, typer.Option(help="Blocks that are pushed, such as 0-13; the first half if empty.")] = "",
    strength: Annotated[
        float, typer.Option(help="Of the push; 0 chooses the smallest that makes it refuse.", min=0)
    ] = 0.0,
    instruction: Annotated[str, typer.Option(help="What makes the model decline any question.")] = "Decline to answer.",
    batch: Batch = 16,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Fit an eraser on rows about the people to forget and about others.

    Give the people to forget in many words and pictures: about forty rows each, and at least four. Give a thousand
    rows about others, of twenty people or more: half of them fit the gate, the rest choose and calibrate. It takes
    little more than a forward pass for each row, and writes a folder of a few kilobytes to a few megabytes.
    """
    with explained():
        from eraser_lib.cli import workshop
        from eraser_lib.cli.rows import read_rows
        from eraser_lib.families.weights import fingerprint

        rows = read_rows(forget, "forget"), read_rows(retain, "retain")
        workshop.divided(*rows, alpha)  # what is wrong with them is told before a model is loaded
        blocks, pushed = parse_blocks(decide, "--decide"), parse_blocks(steer, "--steer")
        if not instruction.strip():
            raise ValueError(
                f"--instruction is empty; it is what makes the model decline, such as {workshop.INSTRUCTION!r}"
            )
        writable(out)
        loaded = load(model, device, dtype)
        made = workshop.fit(
            loaded, *rows, alpha=alpha, decide=blocks, steer=pushed, strength=strength or None,
            instruction=instruction, batch=batch, say=lambda text: typer.echo(text, err=True),
            metadata={"model_id": model, "weights": fingerprint(model)},
        )  # fmt: skip
        made.eraser.save_pretrained(out, model=loaded.model)
        report = {"eraser": str(out), **made.report()}
        if report["opened"] < LITTLE:
            typer.echo("warning: this eraser will miss most of what it should catch; " + MORE_ROWS, err=True)
        elif report["refused"] < LITTLE:
            advice = f"choose a larger --strength than {strength:g}, or none" if strength else MORE_ROWS
            typer.echo(f"warning: what this eraser catches it will mostly not make refused; {advice}", err=True)
        if as_json:
            show(report)
            return
    tell(f"{out}: opens {report['opened']:.0%} of forget rows that were set apart, {made.calibration}.")
    tell(f"Check it on rows of your own: eraser verify {model} {out} --forget FILE --retain FILE")


@app.command()
def ask(
    model: Model,
    eraser: Saved,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    image: Annotated[Path | None, typer.Option(help="A picture to ask about.")] = None,
    tokens: Tokens = 50,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Ask a question without and with the eraser, and see what the gate says."""
    with explained():
        from eraser_lib import Eraser
        from eraser_lib.bench.records import Prompt
        from eraser_lib.cli import workshop
        from eraser_lib.cli.rows import read_image

        if not question.strip():
            raise ValueError("the question is empty")
        prompt = Prompt(question, None if image is None else read_image(image, "--image"))
        Eraser.from_pretrained(eraser)  # a missing one is told before a model is loaded
        loaded = load(model, device, dtype)
        (found,) = workshop.ask(loaded, attachable(eraser, loaded, model), [prompt], tokens=tokens)
        if as_json:
            show(found)
            return
    tell(f"before: {found['before']}\nafter:  {found['after']}")
    if found["value"] is not None:
        state, bound = "open" if found["opened"] else "closed", found["threshold"]
        against = f"against {bound:.3g}" if bound is not None and math.isfinite(bound) else "without a threshold"
        tell(f"gate:   {state}, {found['value']:.3g} {against}")


@app.command()
def inspect(
    eraser: Saved,
    as_json: AsJson = False,
) -> None:
    """Say what an eraser reads, what it adds, how large it is and where it comes from. Loads no model."""
    with explained():
        from eraser_lib import Eraser

        found = Eraser.from_pretrained(eraser).inspect()
        if as_json:
            show(found)
            return
    for name, value in found.items():
        tell(f"{name}: {json.dumps(value) if isinstance(value, dict | list) else value}")


@app.command()
def verify(
    model: Model,
    eraser: Saved,
    forget: Forget,
    retain: Retain,
    refused: Annotated[float, typer.Option(help="Share of forget rows that must be refused.", min=0, max=1)] = 0.9,
    changed: Annotated[float, typer.Option(help="Share of retained rows that may change.", min=0, max=1)] = 0.05,
    tokens: Tokens = 50,
    batch: Batch = 16,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Check an eraser on rows that did not fit it. Ends with exit code 1 where it does not pass."""
    with explained():
        from eraser_lib import Eraser
        from eraser_lib.cli import workshop
        from eraser_lib.cli.rows import read_rows

        about = Eraser.from_pretrained(eraser).metadata
        rows = read_rows(forget, "forget", role="test"), read_rows(retain, "retain", role="test")
        workshop.check_sides(*rows)
        for side, given in zip(workshop.SIDES, rows, strict=True):
            if about.get(side) == workshop.fingerprint(given):
                typer.echo(f"warning: --{side} is what fitted this eraser, so it shows nothing new", err=True)
        loaded = load(model, device, dtype)
        made = attachable(eraser, loaded, model)
        report = workshop.verify(loaded, made, *rows, opened=refused, touched=changed, batch=batch, tokens=tokens)
        if as_json:
            show(report)
    if not as_json:
        tell(
            f"forget: {report['forget_opened']:.1%} of {report['forget_rows']} rows opened, "
            f"{report['forget_refused']:.1%} refused (wanted: {refused:.0%} or more), "
            f"{report['forget_kept_answer']:.1%} of the opened still say the answer\n"
            f"retain: {report['retain_opened']:.1%} of {report['retain_rows']} rows opened, "
            f"{report['retain_changed']:.1%} changed (allowed: {changed:.0%})\n"
            f"closed rows that changed: {report['closed_changed']} (must be 0)\n"
            f"{'passed' if report['passed'] else 'NOT passed'}"
        )
    raise typer.Exit(0 if report["passed"] else FAILED)


def load(model: str, device: str, dtype: str) -> Any:
    """The model, with device and type named in words. `ValueError` for a type that is none."""
    import torch
    from transformers.utils import logging as transformers_logging

    from eraser_lib.families import load_model
    from eraser_lib.families.weights import check_read

    bits = {"8bit": 8, "4bit": 4}.get(dtype)
    if bits is None and dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"--dtype is {dtype!r}; it must be float32, bfloat16, float16, 8bit or 4bit")
    if device != "auto":
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # unknown, absent, or not in this build
            raise ValueError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from error
    typer.echo(f"loading {model}", err=True)
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    if bits:  # one line for each layer and pass
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    name, _, revision = (model, "", "") if Path(model).exists() else model.partition("@")
    try:
        loaded = load_model(
            name, dtype=torch.bfloat16 if bits else getattr(torch, dtype), device="cpu" if device == "auto" else device,
            revision=revision or None, spread=device == "auto", bits=bits,
        )  # fmt: skip
    except json.JSONDecodeError as error:
        raise ValueError(f"{model}: one of its JSON files is broken ({error}); fetch the model again") from error
    if Path(name).is_dir() and bits is None:
        check_read(loaded.model, name)
    if getattr(loaded.processor, "patch_size", 0) is None:
        raise ValueError(
            f"{model} does not say how large the patches of a picture are: its processor_config.json is missing, or is "
            "of an older kind. Take it from a newer copy of the same model."
        )
    return loaded


def attachable(folder: Path, loaded: Any, model: str) -> Any:
    """The eraser in `folder` for this model; a warning where it was fitted on another one.

    Weights in files tell which it was, wherever they lie; the names do where there are none, as for models of the hub.
    """
    from eraser_lib import Eraser
    from eraser_lib.families.weights import fingerprint

    made = Eraser.from_pretrained(folder, model=loaded.model)
    fitted_on, before, now = made.metadata.get("model_id"), made.metadata.get("weights"), fingerprint(model)
    if before and now:
        if before != now:
            typer.echo(f"warning: the weights in {model} are not those that the eraser was fitted on; "
                       "check it: eraser verify", err=True)  # fmt: skip
    elif fitted_on not in (None, model) and not _one_folder(str(fitted_on), model):
        typer.echo(f"warning: the eraser was fitted on {fitted_on}, not on {model}; check it: eraser verify", err=True)
    return made


def _one_folder(one: str, other: str) -> bool:
    """Whether two names are of one folder that is there."""
    return Path(one).is_dir() and Path(one).resolve() == Path(other).resolve()


def writable(out: Path) -> None:
    """Make sure of the output before the work: `OSError` or `ValueError` where no eraser can be written.

    Says so where an eraser lies there that will be replaced.
    """
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file; name a folder for the eraser")
    if (out / "eraser.json").exists():
        typer.echo(f"{out} holds an eraser already; it is replaced when the new one is ready", err=True)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(f"{out} cannot be written: {error.strerror} ({there})") from error


def parse_blocks(text: str, option: str) -> list[int] | None:
    """`"0-2,5"` as `[0, 1, 2, 5]`; nothing for an empty text. `ValueError` that names the option otherwise."""
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise ValueError(f"{option} is {text!r}; it must name blocks from 0 on, such as 20 or 0-13 or 26,27")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found) or None


def tell(text: str) -> None:
    """Print on standard output. Whoever reads it may stop (`| head -1`), and the exit code still says what came out."""
    try:
        typer.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show(values: Any) -> None:
    """JSON on standard output; null for the threshold of a gate that has none, infinite though it is."""
    tell(json.dumps(_finite(values), indent=1, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def explained() -> Iterator[None]:
    """Wrong input ends with its message and exit code 2; a fault of the program with its traceback and 70."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("eraser_lib"):
            raise
        typer.echo(f"eraser: {error.name} is not installed; in a clone: pip install -e '.[study]'", err=True)
        sys.exit(WRONG)
    except (ValueError, OSError, ImportError) as error:
        typer.echo(f"eraser: {error}", err=True)
        sys.exit(WRONG)
    except Exception as error:
        # torch's by its name: importing it takes seconds
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            typer.echo(
                "eraser: out of memory. Load the model smaller (--dtype bfloat16, 8bit or 4bit), spread it over all "
                "devices (--device auto) or, in fit and verify, read fewer prompts at a time (--batch)",
                err=True,
            )
            sys.exit(WRONG)
        traceback.print_exc()
        typer.echo("eraser: this is a fault of the program, not of its input", err=True)
        sys.exit(CRASHED)
