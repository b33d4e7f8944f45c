"""The command `eraser`: erase people from a model of your own, ask it, look at an eraser, check it."""
