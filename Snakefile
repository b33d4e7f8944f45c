# The matrix of the study: one job per notebook, model and split (eraser_lib/study/matrix.py lists them).
#
#   snakemake --cores 2                      the preset `tiny`
#   snakemake --cores 2 --config preset=...  another one
#
# `make study` calls this file and adds checks, the time left, the summary and the report.
import sys

from eraser_lib.study import manifest, matrix, preset as presets

PRESET = presets.load(config.get("preset", "tiny"))
RUN = PRESET.run.path.relative_to(workflow.basedir).as_posix()
JOBS = matrix.jobs(PRESET)
# one small file per job holds the fingerprints of its notebook, of the modules it imports, of its parameters and of
# the checkpoints; it is rewritten only when they change, so an edit reruns the jobs that depend on it and no others
manifest.refresh_inputs(JOBS, PRESET, PRESET.run)
ON_GPU = [name for name, job in JOBS.items() if PRESET.device == "cuda" and job.on_device]


def any_of(names):
    """Pattern of these jobs; of no job where there are none."""
    return "|".join(names) or "(?!)"


def memory(wildcards):
    return JOBS[wildcards.job].memory_mb


def minutes(wildcards, attempt):
    """More of them with each attempt, where a profile allows several."""
    return attempt * max(10, int(4 * JOBS[wildcards.job].minutes))


rule all:
    input:
        expand(f"{RUN}/manifests/{{job}}.json", job=JOBS),


rule notebook:
    wildcard_constraints:
        job=any_of(ON_GPU),
    input:
        made_from=f"{RUN}/.study/inputs/{{job}}.json",
        needs=lambda wildcards: [f"{RUN}/manifests/{name}.json" for name in JOBS[wildcards.job].needs],
    output:
        notebook=f"{RUN}/notebooks/{{job}}.ipynb",
        manifest=f"{RUN}/manifests/{{job}}.json",
    log:
        f"{RUN}/.study/console/{{job}}.log",
    threads: 1
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=1,
    shell:
        "OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 "
        f"{sys.executable} -m eraser_lib.study run --preset {PRESET.name} --job {{wildcards.job}} > {{log}} 2>&1"


# a rule of its own, so that a profile can send these jobs elsewhere
use rule notebook as notebook_without_gpu with:
    wildcard_constraints:
        job=any_of([name for name in JOBS if name not in ON_GPU]),
    resources:
        mem_mb=memory,
        runtime=minutes,
