"""What steering costs, measured against the unsteered model and against peers. Never part of the tests."""
