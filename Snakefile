# The matrix of the study: one job per notebook, model and split (eraser_lib/study/matrix.py lists them). Where the preset
# says `fine_tuning`, one job per checkpoint comes before the notebooks that read it.
#
#   snakemake --cores 2                      the preset `tiny`
#   snakemake --cores 2 --config preset=...  another one
#   ... --config preset=... models=given     with the checkpoints that are there, and no fine-tuning
#   ... --config preset=... longest=1440     no job asks a batch system for more minutes than these
#
# `make study` calls this file and adds checks, the time left, the summary and the report.
import sys

from eraser_lib.study import checkpoints, manifest, matrix, preset as presets

PRESET = presets.load(config.get("preset", "tiny"))
RUN = PRESET.run.path.relative_to(workflow.basedir).as_posix()
JOBS = matrix.jobs(PRESET)
FINE_TUNED = checkpoints.fine_tunings(PRESET)
# a submitted job reads this file again: it leaves alone what the others are compared with, and 7B checkpoints unread
if workflow.is_main_process:
    checkpoints.mark(FINE_TUNED, PRESET.run, given=config.get("models") == "given")
    # one small file per job holds the fingerprints of its notebook, of the modules it imports, of its parameters and of
    # the checkpoints; it is rewritten only when they change, so an edit reruns the jobs that depend on it and no others
    manifest.refresh_inputs(JOBS, PRESET, PRESET.run)
THREADS = "OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1"
ON_GPU = [name for name, job in JOBS.items() if PRESET.device == "cuda" and job.on_device]


def any_of(names):
    """Pattern of these jobs; of no job where there are none."""
    return "|".join(names) or "(?!)"


def memory(wildcards):
    return JOBS[wildcards.job].memory_mb


def at_most(asked):
    """No more minutes than `longest`: a partition refuses a job that asks for more than its limit."""
    return min(asked, int(config.get("longest", asked)))


def minutes(wildcards, attempt):
    """More of them with each attempt, where a profile allows several."""
    return at_most(attempt * max(10, int(4 * JOBS[wildcards.job].minutes)))


def models(job):
    """What stands for the fine-tuned checkpoints that a job reads; their content is among its fingerprints."""
    return [f"{RUN}/.study/checkpoints/{name}" for name in checkpoints.read_by(JOBS[job], FINE_TUNED)]


rule all:
    input:
        expand(f"{RUN}/manifests/{{job}}.json", job=JOBS),
        # by name too: of a job that is complete, nothing that is missing would be made
        sorted({path for job in JOBS for path in models(job)}),


rule notebook:
    wildcard_constraints:
        job=any_of(ON_GPU),
    input:
        made_from=f"{RUN}/.study/inputs/{{job}}.json",
        needs=lambda wildcards: [f"{RUN}/manifests/{name}.json" for name in JOBS[wildcards.job].needs],
        models=ancient(lambda wildcards: models(wildcards.job)),
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
        f"{THREADS} {sys.executable} -m eraser_lib.study run --preset {PRESET.name} --job {{wildcards.job}} > {{log}} 2>&1"


# it resumes from its last state, and says that a checkpoint is there where one is
rule fine_tuning:
    wildcard_constraints:
        checkpoint=any_of(FINE_TUNED),
    output:
        touch(f"{RUN}/.study/checkpoints/{{checkpoint}}"),
    log:
        f"{RUN}/.study/console/{{checkpoint}}.log",
    threads: 1
    resources:
        mem_mb=PRESET.fine_tuning.get("memory_mb", 0),
        runtime=lambda wildcards, attempt: at_most(attempt * 4 * PRESET.fine_tuning["minutes"]),
        gpu=1,
    shell:
        f"{THREADS} {sys.executable} -m eraser_lib.train.finetune --preset {PRESET.name} "
        "--only {wildcards.checkpoint} > {log} 2>&1"


# a rule of its own, so that a profile can send these jobs elsewhere
use rule notebook as notebook_without_gpu with:
    wildcard_constraints:
        job=any_of([name for name in JOBS if name not in ON_GPU]),
    resources:
        mem_mb=memory,
        runtime=minutes,
