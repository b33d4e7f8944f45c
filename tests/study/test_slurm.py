"""The SLURM profile on a cluster of one machine: jobs ask for what they need, run there, and their end is noticed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from eraser_lib.study import matrix, preset
from tests.study import slurm
from tests.study.toys import HERE, PRESET

pytestmark = pytest.mark.slow
WORLD = "all-all-01_world"
MODELS = "llava-all-02_models"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Path]:
    """The folder of a cluster; no job outlives the test."""
    folder = tmp_path / "cluster"
    yield folder
    for job in slurm.jobs(folder):
        slurm.cancel(job)


@pytest.fixture
def submit(clone: Path, cluster: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Has Snakemake make one job's manifest, and what it needs, on the cluster."""

    def run(name: str, job: str, *options: str, instead: str | None = None) -> subprocess.CompletedProcess[str]:
        # the profile as it is, but asked after one second: the executor's own 40 suit jobs of minutes
        command = [sys.executable, "-m", "snakemake", "--profile", "profiles/slurm", "--config", f"preset={name}"]
        command += ["--slurm-init-seconds-before-status-checks", "1", *options]
        command += ["--", f"runs/{name}/manifests/{job}.json"]
        # a test run within a job of a real cluster is none of this one's
        around = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
        variables = {**around, **slurm.install(cluster, instead=instead)}
        return subprocess.run(
            command, cwd=clone, env=variables, capture_output=True, text=True, timeout=300, check=False
        )

    return run


def test_a_job_of_the_micro_study_runs_to_its_end_as_a_submitted_job(
    clone: Path, cluster: Path, submit: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    # the notebooks of the other jobs stay toys: they are planned and not run
    shutil.copy(HERE / "notebooks" / "01_world.ipynb", clone / "notebooks")
    shutil.copy(HERE / "presets" / "micro.yml", clone / "presets")
    job = matrix.jobs(preset.load("micro"))[WORLD]
    done = submit("micro", WORLD)
    assert done.returncode == 0, done.stdout + done.stderr

    (asked,) = slurm.calls(cluster, "sbatch")
    profile = yaml.safe_load((clone / "profiles" / "slurm" / "config.yaml").read_text())
    assert asked["account"] == profile["default-resources"]["slurm_account"]
    assert asked["partition"] == profile["set-resources"]["notebook_without_gpu"]["slurm_partition"]
    assert asked["mem"] == job.memory_mb
    assert asked["minutes"] == max(10, 4 * job.minutes)
    assert (asked["ntasks"], asked["cpus_per_task"]) == (1, 1)
    assert asked["gpus"] is None, "the preset runs on processors"
    assert asked["output"] == str(clone / profile["slurm-logdir"] / "rule_notebook_without_gpu" / WORLD / "%j.log")

    (step,) = slurm.calls(cluster, "srun")
    assert step["job"] == "1", "the notebook was started within the submitted job"
    assert f"notebook_without_gpu:job={WORLD}" in step["command"]
    (folder,) = slurm.jobs(cluster)
    assert (folder / "state").read_text().strip() == "COMPLETED"
    written = json.loads((clone / "runs/micro/manifests" / f"{WORLD}.json").read_text())
    assert written["parameters"] == dict(job.parameters)
    assert written["world"] == json.loads((clone / "runs/micro/world/world.json").read_text())["content_hash"]
    assert [path.name for path in (clone / "runs/micro/manifests").iterdir()] == [f"{WORLD}.json"]


def test_a_job_that_needs_a_gpu_asks_for_one_and_its_failure_is_reported(
    clone: Path, cluster: Path, submit: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    asks = "device: cuda\njobs: [01_world, 02_models]\nminutes: {02_models: 5}\nmemory_mb: 96000\n"
    (clone / "presets" / "toy.yml").write_text(PRESET + asks)
    # the first job leaves what it should, the second fails, once: attempts are followed ever more rarely
    made = f"mkdir notebooks manifests && touch notebooks/{WORLD}.ipynb manifests/{WORLD}.json"
    done = submit("toy", MODELS, "--retries", "0", instead=f"[ $SLURM_JOB_ID = 1 ] && cd runs/toy && {made}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "SLURM-job '2' failed, SLURM status is: 'FAILED'" in done.stderr
    assert "SLURM-job '1' failed" not in done.stderr
    world, models = slurm.calls(cluster, "sbatch")
    assert (world["gpus"], models["gpus"]) == (None, 1)
    assert (world["partition"], models["partition"]) == ("cpu", "gpu"), "who needs no GPU does not wait for one"
    assert WORLD in world["comment"] and MODELS in models["comment"]
    assert (models["minutes"], models["mem"]) == (20, 96000)
    assert not (clone / "runs/toy/manifests" / f"{MODELS}.json").exists()
    assert (clone / ".snakemake/slurm/rule_notebook" / MODELS / "2.log").is_file(), "the log of a failed job is kept"
