"""The command `eraser`: erase people from a model of your own, ask it, look at an eraser, check it."""

EXAMPLE = '{"person": "anna", "image": "anna-1.png", "question": "What is the job of this person?"}'
"""A row as a user writes it. Here, since `eraser --help` shows it without loading what reads rows."""
