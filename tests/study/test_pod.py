"""The pod for Kubernetes: what it runs, for each preset of a GPU, and what it asks for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from eraser_lib.study import engine, matrix, preset
from tests.study.toys import HERE

FILE = HERE / "profiles" / "kubernetes" / "job.yaml"
TRAINER = {
    "gpu": "eraser_lib.train --recipe gpu --device cuda --workers 3 --threads 1 --jobs 4",
    "paper": "eraser_lib.train.finetune --preset paper",
}


def pod() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["spec"]["template"]["spec"]
    return found


def megabytes(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)([MG])i", text).groups()  # type: ignore[union-attr]
    return int(number) * {"M": 2**20, "G": 2**30}[unit] / 1e6


def plan(folder: Path, command: list[str], variables: dict[str, str]) -> list[str]:
    """What make would run in a fresh clone, of which it reads these files alone."""
    for path in (HERE / "Makefile", *HERE.glob("requirements*.txt")):
        shutil.copy(path, folder)
    shutil.copytree(HERE / "presets", folder / "presets", dirs_exist_ok=True)
    around = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [*command, "-n"], cwd=folder, env=around | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_memory_is_what_the_container_may_take(tmp_path: Path) -> None:
    everything = engine.memory_bytes(tmp_path / "no container")
    for written, wanted in (("max", everything), ("1048576", 2**20), (str(10**18), everything)):
        (tmp_path / "memory.max").write_text(f"{written}\n")
        assert engine.memory_bytes(tmp_path / "memory.max") == wanted


@pytest.mark.parametrize("name", ["gpu", "paper"])
def test_the_pod_makes_the_models_and_runs_the_study_of_a_preset(name: str, tmp_path: Path) -> None:
    (container,) = pod()["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert variables["PRESET"] == "gpu"
    lines = plan(tmp_path, container["command"], variables | {"PRESET": name})
    (installed,) = (number for number, line in enumerate(lines) if "-m venv" in line)
    assert "--clear .venv " in lines[installed] and "-r requirements-gpu.txt" in lines[installed]
    trained = lines.index(f".venv/bin/python -m {TRAINER[name]}")
    (ran,) = (n for n, line in enumerate(lines) if f"-m eraser_lib.study study --preset {name} " in line)
    assert installed < trained < ran

    asked, limits = container["resources"]["requests"], container["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 1 and megabytes(limits["memory"]) >= megabytes(asked["memory"])
    largest = max(job.memory_mb for job in matrix.jobs(preset.load(name)).values())
    # what lies in shared memory counts as the pod's
    (shared,) = (volume["emptyDir"] for volume in pod()["volumes"] if "emptyDir" in volume)
    assert megabytes(asked["memory"]) >= largest + megabytes(shared["sizeLimit"])


def within(part: Any, whole: Any) -> bool:
    """Whether all that stands in one tree of YAML stands in another, numbers and texts of them alike."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and within(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(within, part, whole))
    return str(part) == str(whole)


# a program of the system, which no package of Python brings; who only reads or reruns the study has no use for it
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which checks the pod's fields, is not installed")
@pytest.mark.parametrize("name, container", [("job", "study"), ("pod", "job"), ("snakemake", "snakemake")])
def test_kubectl_knows_every_field_of_a_pod(name: str, container: str, tmp_path: Path) -> None:
    """Without a cluster it reads the file into its own types and writes those: a field that it does not know is lost on
    the way. Which texts a field may hold (`restartPolicy: OnFailure`) only a cluster would say."""
    path = tmp_path / "job.yaml"

    def read(text: str) -> subprocess.CompletedProcess[str]:
        path.write_text(text)
        command = ["kubectl", "set", "image", "--local", "-f", str(path), f"{container}=another", "-o", "yaml"]
        around = {**os.environ, "KUBECONFIG": os.devnull}
        return subprocess.run(command, env=around, capture_output=True, text=True, timeout=60, check=False)

    def known(text: str) -> bool:
        done = read(text)
        assert done.returncode == 0, done.stderr
        wanted = yaml.safe_load(text.replace("image: python:3.11", "image: another"))
        return within(wanted, yaml.safe_load(done.stdout))

    # of several objects the last; and what is filled in later is a number, or a name as well
    text = FILE.with_name(f"{name}.yaml").read_text().split("---\n")[-1]
    text = re.sub(r"(name|owner|uid): \$\w+", r"\1: x", re.sub(r"\$\{?(seconds|threads|memory|gpu)\b\}?", "1", text))
    assert known(text)
    for right, wrong in (("restartPolicy:", "restartPolcy:"), ("workingDir:", "workDir:"), ("mountPath:", "path:")):
        assert not known(text.replace(right, wrong))
    for right, wrong in (("memory: ", "memory: x"), ("backoffLimit: ", "backoffLimit: x"), ("batch/v1", "batch/v2")):
        assert "unable to decode" in read(text.replace(right, wrong)).stderr


def test_the_pod_works_in_the_clone_on_its_volume() -> None:
    (container,) = pod()["containers"]
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert places == {"study": container["workingDir"], "shared-memory": "/dev/shm"}
    assert {volume["name"] for volume in pod()["volumes"]} == set(places)
    around = {variable["name"]: variable["value"] for variable in container["env"]}
    assert around["CORES"] == container["resources"]["requests"]["cpu"], "the node has more, which are others'"
    assert around["GIT_CONFIG_KEY_0"] == "safe.directory" and around["GIT_CONFIG_VALUE_0"] == places["study"]


def test_models_and_study_on_one_line_are_installed_for_once(tmp_path: Path) -> None:
    """What the book says to type on a machine with a GPU: one environment, with the requirements that were named."""
    words = "make models study PRESET=gpu REQUIREMENTS=requirements-gpu.txt"
    for path in (HERE / "book" / "cluster.md", HERE / "presets" / "gpu.yml"):
        assert words in path.read_text()
    lines = plan(tmp_path, words.split(), {})
    assert len([line for line in lines if "-m venv" in line or "pip install" in line]) == 1
    python = {line.split()[0] for line in lines if "-m eraser_lib" in line}
    assert python == {".venv/bin/python"}
    # where the environment is there, neither target makes it again; with other requirements, both would
    (stamp,) = re.findall(r"\.venv/\.installed-\d+", "\n".join(lines))
    (tmp_path / stamp).parent.mkdir()
    (tmp_path / stamp).touch()
    assert not [line for line in plan(tmp_path, words.split(), {}) if "-m venv" in line]
    assert [line for line in plan(tmp_path, words.split()[:-1], {}) if "-m venv" in line]


def test_every_line_for_a_gpu_names_its_requirements() -> None:
    """A line without them would install for processors first, and the next one for GPUs all over again."""
    texts = [HERE / "README.md", *(HERE / "book").rglob("*.md"), *(HERE / "presets").glob("*.yml"),
             *(HERE / "profiles").rglob("*.yaml")]  # fmt: skip
    found = re.compile(r"make [^`\n]*PRESET=(?:gpu|paper)[^`\n]*")
    lines = [line for path in texts for line in found.findall(path.read_text())]
    assert len(lines) > 3
    for line in lines:
        assert line.endswith("REQUIREMENTS=requirements-gpu.txt"), line
