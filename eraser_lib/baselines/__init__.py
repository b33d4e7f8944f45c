"""Unlearning baselines, one method per file."""
