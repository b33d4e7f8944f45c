#!/usr/bin/env python3
"""What the profile asks of Kubernetes, through kubectl and with nothing installed.

pods.py submit SCRIPT    runs a script of Snakemake's in a pod (pod.yaml); prints the job's name
pods.py status NAME      prints running, success or failed
pods.py NAME...          ends these jobs and their pods
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from string import Template


def submit(script: str) -> str:
    """The name says which job of which clone it is. So what an earlier Snakemake left of that job is ended first, and
    no two pods ever write the same files."""
    asked = json.loads(re.findall("^# properties = (.*)$", Path(script).read_text(), re.MULTILINE)[0])
    template = Path(__file__).with_name("pod.yaml").read_text()
    place = [os.getcwd(), re.findall(r"claimName: *[\w.-]+", template), asked["output"]]
    readable = "-".join([asked["rule"], *asked["wildcards"].values()])
    name = re.sub("[^a-z0-9]+", "-", readable.lower())[:50].strip("-")
    name += "-" + hashlib.sha256(json.dumps(place).encode()).hexdigest()[:8]
    log = Path(".snakemake", "kubernetes", f"{name}.log").absolute()
    log.parent.mkdir(parents=True, exist_ok=True)
    values = {
        "name": name, "script": script, "log": log, "threads": asked["threads"],
        "memory": asked["resources"]["mem_mb"], "seconds": 60 * asked["resources"]["runtime"],
        "gpu": asked["resources"].get("gpu"), "owner": os.environ.get("POD_NAME"), "uid": os.environ.get("POD_UID"),
    }  # fmt: skip
    lines = [line for line in template.splitlines() if all(values[it] for it in re.findall(r"# if (\w+)$", line))]
    kubectl("delete", "job", name, "--ignore-not-found", "--cascade=foreground", "--timeout=120s").check_returncode()
    kubectl("create", "-f", "-", text=Template("\n".join(lines)).substitute(values)).check_returncode()
    return name


def status(name: str) -> str:
    answer = kubectl("get", "job", name, "--ignore-not-found", "-o", "json")
    if answer.returncode != 0:
        return "running"  # as far as is known: the cluster did not answer, and is asked again
    if not answer.stdout.strip():
        return "failed"  # somebody deleted it
    conditions = json.loads(answer.stdout).get("status", {}).get("conditions", [])
    ended = {condition["type"] for condition in conditions if condition["status"] == "True"}
    return "failed" if "Failed" in ended else "success" if "Complete" in ended else "running"


def cancel(*names: str) -> None:
    """Snakemake waits two seconds for it; kubectl, in a session of its own and with nothing to print to, goes on."""
    words = ["kubectl", "delete", "job", *names, "--ignore-not-found", "--wait=false"]
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True, start_new_session=True)


def kubectl(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["kubectl", *words], input=text, stdout=subprocess.PIPE, text=True, check=False)


if __name__ == "__main__":
    if sys.argv[1] in ("submit", "status"):
        print({"submit": submit, "status": status}[sys.argv[1]](sys.argv[2]))
    else:
        cancel(*sys.argv[1:])
