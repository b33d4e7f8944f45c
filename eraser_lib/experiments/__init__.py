"""The experiments that the notebooks call: question sets, directions, gates, methods and their selection."""
