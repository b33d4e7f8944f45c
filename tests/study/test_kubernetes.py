"""The Kubernetes profile on a cluster of one machine: a pod for each job, whose end is noticed, and brought about."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from eraser_lib.study import matrix, preset
from eraser_lib.study.engine import _group_alive
from tests.study import kubernetes
from tests.study.toys import HERE, PRESET

WORLD = "all-all-01_world"
MODELS = "llava-all-02_models"
ON_GPU = "device: cuda\njobs: [01_world, 02_models]\nminutes: {02_models: 5}\nmemory_mb: 96000\n"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Path]:
    """The folder of a cluster; no pod outlives the test."""
    folder = tmp_path / "cluster"
    yield folder
    for job in kubernetes.jobs(folder):
        kubernetes.end(job)


@pytest.fixture
def start(clone: Path, cluster: Path) -> Callable[..., subprocess.Popen[str]]:
    """Has Snakemake make one job's manifest, and what it needs, in pods."""

    def run(job: str, *options: str, seconds: int = 1, instead: str | None = None) -> subprocess.Popen[str]:
        # the profile as it is, but asked after one second
        command = [sys.executable, "-m", "snakemake", "--profile", "profiles/kubernetes", "--config", "preset=toy"]
        command += ["--seconds-between-status-checks", str(seconds), *options, "--", f"runs/toy/manifests/{job}.json"]
        # a test run within a pod of a real cluster owns nothing here
        around = {key: value for key, value in os.environ.items() if not key.startswith("POD_")}
        return subprocess.Popen(
            command, cwd=clone, env={**around, **kubernetes.install(cluster, instead=instead)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            # a shell ignores Ctrl-C for what it starts in the background, and so would every process below it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip

    return run


def inside(manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A job's pod, and what its container asks for at most."""
    pod: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return pod, pod["containers"][0]["resources"]["limits"]


@pytest.mark.slow
def test_a_job_runs_to_its_end_in_a_pod(
    clone: Path, cluster: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    job = matrix.jobs(preset.load("toy"))[WORLD]
    process = start(WORLD)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text

    (made,) = kubernetes.calls(cluster, "create")
    pod, limits = inside(made)
    assert limits == {"memory": f"{job.memory_mb}Mi"}, "the preset runs on processors"
    assert "tolerations" not in pod and "ownerReferences" not in made["metadata"]
    assert pod["activeDeadlineSeconds"] == 60 * max(10, int(4 * job.minutes))
    (folder,) = kubernetes.jobs(cluster)
    assert folder.name == made["metadata"]["name"] and folder.name.startswith("notebook-without-gpu-all-all-01-world-")
    assert (folder / "state").read_text().strip() == "Complete"
    written = json.loads((clone / "runs/toy/manifests" / f"{WORLD}.json").read_text())
    assert written["parameters"] == dict(job.parameters)
    assert (clone / "runs/toy/notebooks" / f"{WORLD}.ipynb").is_file()
    log = (clone / ".snakemake/kubernetes" / f"{folder.name}.log").read_text()
    assert "rule notebook_without_gpu:\n" in log and "1 of 1 steps (100%) done" in log


@pytest.mark.slow
def test_a_job_that_needs_a_gpu_asks_for_one_and_its_failure_is_reported(
    clone: Path, cluster: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    (clone / "presets" / "toy.yml").write_text(PRESET + ON_GPU)
    # the first job leaves what it should, the second fails, twice
    made = f"mkdir notebooks manifests && touch notebooks/{WORLD}.ipynb manifests/{WORLD}.json"
    process = start(MODELS, "--retries", "1", instead=f"cd '{clone}/runs/toy' && {made}")
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 1, text
    assert "Error in rule notebook:" in text and "Error in rule notebook_without_gpu" not in text
    world, first, second = kubernetes.calls(cluster, "create")
    assert f"external_jobid: {second['metadata']['name']}" in text
    assert first["metadata"] == second["metadata"] != world["metadata"]
    assert "nvidia.com/gpu" not in inside(world)[1]
    for attempt, manifest in enumerate((first, second), start=1):
        pod, limits = inside(manifest)
        assert limits == {"memory": "96000Mi", "nvidia.com/gpu": 1}
        assert pod["activeDeadlineSeconds"] == attempt * 60 * 20
        assert [one["key"] for one in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert not (clone / "runs/toy/manifests" / f"{MODELS}.json").exists()


@pytest.mark.slow
def test_an_interruption_ends_the_pods(cluster: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    # asked so rarely that the interruption comes between
    process = start(WORLD, seconds=20, instead="sleep 600")
    until = time.monotonic() + 120
    while not (running := kubernetes.jobs(cluster)) and time.monotonic() < until:
        time.sleep(0.1)
    (job,) = running
    pod = int((job / "process").read_text())
    assert _group_alive(pod)
    time.sleep(3)  # the name of the job reaches Snakemake
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 1, text
    assert kubernetes.calls(cluster, "delete") == [[job.name], [job.name]], "before it was created, and now"
    assert not kubernetes.jobs(cluster)
    assert not _group_alive(pod)


@pytest.fixture
def pods(clone: Path, cluster: Path) -> Callable[..., str]:
    """Runs the profile's command as Snakemake does."""
    variables = {**os.environ, **kubernetes.install(cluster, instead="sleep 600")}

    def run(*words: str, **more: str) -> str:
        command = [str(clone / "profiles/kubernetes/pods.py"), *words]
        return subprocess.run(
            command, cwd=clone, env=variables | more, stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()

    return run


def script(path: Path, output: str, **resources: int) -> str:
    """A script as Snakemake writes them for a cluster, as far as it says what the job is and asks for."""
    asked = {
        "rule": "notebook", "wildcards": {"job": MODELS}, "output": [output], "threads": 1,
        "resources": {"mem_mb": 100, "runtime": 10, **resources},
    }  # fmt: skip
    path.write_text(f"#!/bin/sh\n# properties = {json.dumps(asked)}\n")
    return str(path)


def test_no_two_pods_run_the_same_job(cluster: Path, pods: Callable[..., str], tmp_path: Path) -> None:
    """What a Snakemake left that was killed goes before its job is submitted again; other jobs stay."""
    first = pods("submit", script(tmp_path / "1.sh", "runs/toy/a"))
    (job,) = kubernetes.jobs(cluster)
    left = int((job / "process").read_text())
    again = pods("submit", script(tmp_path / "2.sh", "runs/toy/a", gpu=1))
    other = pods("submit", script(tmp_path / "3.sh", "runs/micro/a"))
    assert first == again != other
    assert {path.name for path in kubernetes.jobs(cluster)} == {again, other}
    assert not _group_alive(left)


def test_a_job_of_snakemake_in_a_pod_belongs_to_that_pod(
    cluster: Path, pods: Callable[..., str], tmp_path: Path
) -> None:
    pods("submit", script(tmp_path / "1.sh", "runs/toy/a"), POD_NAME="eraser-snakemake-x", POD_UID="1-2")
    (made,) = kubernetes.calls(cluster, "create")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "eraser-snakemake-x", "uid": "1-2"}
    assert made["metadata"]["ownerReferences"] == [owner]


def test_a_job_that_somebody_deleted_has_failed_and_a_silent_cluster_says_nothing(
    cluster: Path, pods: Callable[..., str], tmp_path: Path
) -> None:
    name = pods("submit", script(tmp_path / "1.sh", "runs/toy/a"))
    assert pods("status", name) == "running"
    pods(name, "another")
    assert pods("status", name) == "failed"
    (cluster / "bin" / "kubectl").write_text("#!/bin/sh\nexit 1\n")
    assert pods("status", name) == "running"


def test_the_pod_of_snakemake_runs_the_profile(clone: Path, tmp_path: Path) -> None:
    """Its script, with a dry run in the place of Snakemake and everything else installed."""
    for name in ("make", "kubectl", "snakemake"):
        runs = f'exec {sys.executable} -m snakemake -n "$@"' if name == "snakemake" else "exit 0"
        (tmp_path / name).write_text(f"#!/bin/sh\n{runs}\n")
        (tmp_path / name).chmod(0o755)
    shutil.copy(HERE / "presets" / "paper.yml", clone / "presets")
    *_, job = yaml.safe_load_all((clone / "profiles" / "kubernetes" / "snakemake.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    given = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
    around = {**os.environ, **given, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = container["command"] + container["args"]
    done = subprocess.run(command, cwd=clone, env=around, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^fine_tuning +12$", done.stdout + done.stderr, re.MULTILINE)
    owner = {variable["name"]: variable["valueFrom"] for variable in container["env"] if "valueFrom" in variable}
    paths = {name: source["fieldRef"]["fieldPath"] for name, source in owner.items()}
    assert paths == {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid"}


def test_all_pods_meet_in_the_clone_on_the_volume() -> None:
    """The same claim, path and image for Snakemake and for its jobs: files and the environment have to be found."""
    found = set()
    for name in ("pod.yaml", "snakemake.yaml", "job.yaml"):
        text = (HERE / "profiles" / "kubernetes" / name).read_text()
        assert text.count("claimName: STUDY-CLAIM") == text.count("{name: study, mountPath: /study}") == 1
        found.add(tuple(re.findall("image: .*|workingDir: .*", text)))
    assert found == {("image: python:3.11", "workingDir: /study")}
