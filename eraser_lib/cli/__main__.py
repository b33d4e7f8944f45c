"""`python -m eraser_lib.cli` is the command `eraser`."""

from eraser_lib.cli.main import app

app(prog_name="eraser")
