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


wildcard_constraints:
    job="|".join(JOBS),


rule all:
    input:
        expand(f"{RUN}/manifests/{{job}}.json", job=JOBS),


rule notebook:
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
        mem_mb=lambda wildcards: JOBS[wildcards.job].memory_mb,
        gpu=lambda wildcards: int(PRESET.device == "cuda" and JOBS[wildcards.job].on_device),
        # minutes; more of them with each attempt, where a profile allows several
        runtime=lambda wildcards, attempt: attempt * max(10, int(4 * JOBS[wildcards.job].minutes)),
    shell:
        "OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 "
        f"{sys.executable} -m eraser_lib.study run --preset {PRESET.name} --job {{wildcards.job}} > {{log}} 2>&1"
