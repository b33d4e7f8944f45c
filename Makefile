# The front door. `make help` lists the targets; every target sets up what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PRESET ?= tiny
CORES ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1)
# a preset within another one (see presets/) shares its folders
STUDY_NAME := $(or $(shell sed -n 's/^within: *//p' presets/$(PRESET).yml 2>/dev/null),$(PRESET))
FROM ?= results/$(STUDY_NAME)
REQUIREMENTS ?= requirements-cpu.txt
# the models of a preset that says so are fine-tuned, not trained from nothing
FINE_TUNED := $(shell grep -ls '^fine_tuning:' presets/$(STUDY_NAME).yml)
# such as "--family qwen --branch vanilla"; empty means both families, vanilla and retain-only
TRAIN ?= $(if $(FINE_TUNED),--preset $(PRESET),$(TRAIN_$(PRESET)))
TRAIN_gpu := --recipe gpu --device cuda --workers 3 --threads 1 --jobs 4
TRAIN_tiny-64 := --recipe tiny-64 --family llava --branch vanilla
TRAIN_tiny-128 := --recipe tiny-128 --branch vanilla
TRAIN_tiny-512 := --recipe tiny-512 --branch vanilla

# PY=python uses the active environment (conda, say) as it is; otherwise everything runs in .venv
FIND_PYTHON = for name in python3.11 python3.12 python3 python; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& { command -v $$name; exit; }; done; true
PYTHON ?= $(shell $(FIND_PYTHON))
STAMP := .venv/.installed-$(shell cat $(REQUIREMENTS) requirements*.txt | cksum | cut -d' ' -f1)
BOOK_STAMP := .venv-book/.installed-$(shell cat requirements-book.txt | cksum | cut -d' ' -f1)

ifdef PY
INSTALLED :=
BOOK_INSTALLED :=
BOOK_PY := $(PY)
else
PY := .venv/bin/python
INSTALLED := $(STAMP)
ifneq ($(wildcard $(STAMP)),)
BOOK_INSTALLED :=
BOOK_PY := $(PY)
else
BOOK_INSTALLED := $(BOOK_STAMP)
BOOK_PY := .venv-book/bin/python
endif
endif

# one thread per process: jobs share the cores, and the thread count is part of what makes logs identical
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
STUDY = $(PY) -m eraser_lib.study

# `make models study` trains first, whatever MAKEFLAGS says
.NOTPARALLEL:
.PHONY: help setup plan study book links report test test-fast lint models check promote prose afresh clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo
	@echo "  PRESET=tiny     which study: $(patsubst presets/%.yml,%,$(wildcard presets/*.yml))"
	@echo "  CORES=$(CORES)         jobs at a time"
	@echo "  PY=python       use the active environment instead of .venv"

setup: $(INSTALLED)  ## install into .venv (once; again when a requirements file changes)
	@echo "Ready: $$($(PY) --version) in $(PY)"

define install
	@test -n "$(PYTHON)" || { echo "Error: no Python 3.11 or 3.12 found. Install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "Error: $(PYTHON) is $$($(PYTHON) --version 2>&1), but Python 3.11 or 3.12 is needed. Name one: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Installing $(2) into $(1) ..."
	@begun=$$SECONDS; $(PYTHON) -m venv --clear $(1) && $(1)/bin/python -m pip install --quiet --disable-pip-version-check -r $(2) $(3) \
		&& touch $@ && echo "Installed in $$((SECONDS - begun)) s"
endef

$(STAMP):
	$(call install,.venv,$(REQUIREMENTS),-e .)

$(BOOK_STAMP):
	$(call install,.venv-book,requirements-book.txt,)

plan: $(INSTALLED)  ## say which jobs `make study` would run and how long they take; runs nothing
	@$(STUDY) study --preset $(PRESET) --cores $(CORES) --dry-run

study: $(INSTALLED)  ## rerun the whole study, render its book (of tiny), compare with the reference; resumes after a stop
	@$(STUDY) study --preset $(PRESET) --cores $(CORES)
	@if [ "$(STUDY_NAME)" = tiny ]; then $(MAKE) book FROM=runs/tiny; \
		else echo "The book is about the preset tiny. Figures of this run: runs/$(STUDY_NAME)/summary.csv; its notebooks: runs/$(STUDY_NAME)/notebooks."; fi
	@$(STUDY) report --preset $(PRESET)

book: $(BOOK_INSTALLED)  ## render the book from the committed results (FROM=runs/tiny: from a run); needs no torch
	@test -s $(FROM)/summary.csv || { echo "Error: $(FROM)/summary.csv does not exist, so there is nothing to show. Run 'make study PRESET=$(PRESET)' first." >&2; exit 2; }
	@test ! -e book/run -o -L book/run || { echo "Error: book/run is not a link. Move it away." >&2; exit 2; }
	@ln -sfn ../$(FROM) book/run
	@rm -rf _build/html
	@$(BOOK_PY) -c "from jupyter_book.cli.main import main; main()" build . -W -n --keep-going --all --quiet
	@$(BOOK_PY) book/_ext/pages.py _toc.yml _build/html
	@echo "The book of $(FROM): $(CURDIR)/_build/html/index.html"

links: $(BOOK_INSTALLED)  ## ask every address in the book whether it still answers (needs a network)
	@ln -sfn ../$(FROM) book/run
	@$(BOOK_PY) -c "from jupyter_book.cli.main import main; main()" build . --builder linkcheck --all --quiet

report: $(INSTALLED)  ## compare the run with the committed reference again
	@$(STUDY) report --preset $(PRESET)

test: $(INSTALLED) lint  ## everything: lint, unit tests, a micro study end to end, the strict book
	@$(PY) -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder

test-fast: $(INSTALLED)  ## unit tests only
	@$(PY) -m pytest -m "not e2e and not slow"

lint: $(INSTALLED)  ## ruff, mypy, notebooks without outputs
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) -m pytest -q tests/study/test_notebooks.py

models: $(INSTALLED)  ## train the small models from nothing, where missing or stale (hours on two cores; resumes)
	@$(STUDY) retire --preset $(PRESET)
	@$(PY) -m eraser_lib.train$(if $(FINE_TUNED),.finetune) $(TRAIN)
	@$(STUDY) record --preset $(PRESET)

check: $(BOOK_INSTALLED)  ## say which checkpoints and results are stale (FROM=runs/tiny: of a run); needs no torch
	@$(BOOK_PY) -m eraser_lib.study check --preset $(PRESET) --folder $(FROM)

promote: $(INSTALLED)  ## maintainers: make the complete run the committed reference
	@$(STUDY) promote --preset $(PRESET)

prose: $(INSTALLED)  ## maintainers: bring edited text cells into the executed notebooks without running them
	@$(STUDY) prose --preset $(PRESET) --folder $(FROM)

afresh:  ## forget the run of PRESET, and its models unless they are committed: `make models study` does all again
	@rm -rf runs/$(STUDY_NAME)
	@if git check-ignore -q checkpoints/$(PRESET); then rm -rf checkpoints/$(PRESET); fi

clean:  ## remove runs, the rendered book and caches; keeps .venv, checkpoints and results
	@rm -rf runs _build .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@rm -f book/run
	@echo "Removed runs/, _build/ and caches. Remove .venv yourself to install afresh."
