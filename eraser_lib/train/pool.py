"""Processes in which several models are trained at a time."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import torch


def training_pool(jobs: int) -> ProcessPoolExecutor:
    """As many processes, each begun from nothing and with the threads of this one.

    They are spawned, since a forked one could not use a GPU that this process has touched. Those that prepare batches
    within them are forked all the same: a spawned process would spawn its own as well, and what packs rows holds a
    model with hooks and a cache, which cannot be sent to one.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, context, initializer=_begin, initargs=(torch.get_num_threads(),))


def _begin(threads: int) -> None:
    """Runs in each process. It is no part of `__main__`, which a spawned process does not import."""
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(threads)
