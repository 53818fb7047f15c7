# Everything a fresh clone needs, on a bare machine with Python >= 3.11.
#   make demo        environment, install, one portrait + 10 s of speech -> demo.mp4
#   make demo-dub    the same, then its last six seconds with the speech's first words -> demo-dub.mp4
#   make demo-imagine    environment, install, somebody imagined from 10 s of speech -> demo-imagine.mp4
#   make demo-fill   the same as demo, then its first second with a hidden face filled in again -> demo-fill.mp4
#   make test        environment, install, the tests to run before and after every change
#   make test-all    these, then the slow ones: documentation, benchmarks, trained weights
#   make test-portable   tests whose verdict could depend on the processor, as on others; CPUS=avx2 for one
#   make lint        ruff and mypy
#   make bench       speed and memory of animate, to benchmarks.json; ARGS=--quick for minutes instead of most of an hour
#   make bench-dub   speed and memory of dub, to benchmarks-dub.json
#   make bench-imagine   speed and memory of imagine, to benchmarks-imagine.json
#   make bench-fill  speed and memory of fill, to benchmarks-fill.json

# The first of these that starts and is new enough; a name on the path may be a shim that does not.
PYTHON ?= $(shell for p in python3 python python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
# This build, first and on its own: a newer one may bring gigabytes of GPU libraries.
TORCH ?= torch==2.13.0
VENV  ?= .venv
BIN   := $(VENV)/bin
PIP   := $(BIN)/python -m pip install -qq --disable-pip-version-check

.PHONY: help venv demo demo-dub demo-imagine demo-fill test test-all test-portable lint bench bench-dub bench-imagine bench-fill clean

help:
	@sed -n 's/^#   //p' Makefile

venv: $(VENV)/.core

$(VENV)/.core: pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 on the path: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing into $(VENV) with $(PYTHON), a minute or two"
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$(TORCH)"
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) -e ".[train,eval,dev]"
	@touch $@

demo: $(VENV)/.core
	$(BIN)/talkface animate src/talkface/examples/portrait.jpg src/talkface/examples/speech.flac -o demo.mp4 --overwrite

demo-dub: demo
	$(BIN)/talkface dub demo.mp4 src/talkface/examples/speech.flac -o demo-dub.mp4 --start 4 --overwrite

demo-imagine: $(VENV)/.core
	$(BIN)/talkface imagine src/talkface/examples/speech.flac -o demo-imagine.mp4 --seed 7 --overwrite

demo-fill: demo
	$(BIN)/talkface fill demo.mp4 src/talkface/examples/speech.flac --identity src/talkface/examples/portrait.jpg \
		-o demo-fill.mp4 --stop 1 --overwrite

# A worker a core, a thread a worker: two threads on a core that is shared take twice as long as one.
THREADS ?= 1
PYTEST := OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -q --durations 15
WORKERS := --numprocesses auto --maxprocesses 4 --dist loadfile
# Trainings, pictures after encoding, detectors, trackers: where an instruction set could decide.
SENSITIVE := $(addprefix tests/,cli/test_bad_input_dub.py data diffusion evaluation/test_fill_figures.py face \
	media/test_color.py media/test_source.py nn performance rendering scripts speech systems \
	$(addprefix training/test_,appearance_task.py augmentation.py distilled.py fine_refiner.py g4g_tasks.py \
	imagineid_tasks.py latents.py occlusion_task.py rollout.py texture_task.py thpad_tasks.py training.py))
CPUS ?= avx2 default zen3 sse4

test: $(VENV)/.dev
	$(PYTEST) $(WORKERS) -m "not slow"

test-all: test
	$(PYTEST) $(WORKERS) -m slow

test-portable: $(VENV)/.dev
	$(BIN)/python scripts/other_cpus.py $(CPUS) -- env $(PYTEST) $(WORKERS) -m "not slow" $(SENSITIVE)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.core
	$(BIN)/python benchmarks/animate.py $(ARGS)

bench-dub: $(VENV)/.core
	$(BIN)/python benchmarks/dub.py $(ARGS)

bench-imagine: $(VENV)/.core
	$(BIN)/python benchmarks/imagine.py $(ARGS)

bench-fill: $(VENV)/.core
	$(BIN)/python benchmarks/fill.py $(ARGS)

clean:
	rm -rf $(VENV) demo*.mp4 benchmarks*.json
