.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

setup: .venv/.ready  ## make .venv (does nothing when it is up to date)

.venv/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup  ## the main job on the shipped picture: a textured mesh and an overview of it
	$(RUN) train.py

WORKERS ?= 2

test: setup  ## the CPU test suite, on WORKERS processes of one thread each
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS) --dist loadfile

test-slow: setup  ## tests that take minutes
	$(RUN) -m pytest -m slow

test-gpu: setup  ## tests that need a CUDA device
	$(RUN) -m pytest -m gpu --continue-on-collection-errors

lint: setup  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

leaderboard: setup  ## our objects with known truth: every method measured, the README's table rewritten
	$(RUN) evaluate.py protocol=synthetic_gt methods=[zero123_mini] preset=quick
	$(RUN) -m dg.eval.board outputs/leaderboard --readme README.md --figures psnr_db,silhouette_iou,volume_iou/unaligned
	cp outputs/leaderboard/leaderboard.md outputs/leaderboard/objects.csv experiments/leaderboard/

experiments-smoke: setup  ## the smallest version of every experiment: two at once, a minute or two
	$(RUN) -m dg.experiment smoke

bench: setup  ## timings, appended as records to benchmarks/results/
	$(RUN) -m benchmarks

bench-gpu: setup  ## on a GPU: the whole job and each part against its floor; benchmarks/results/gpu.json, gpu_cost.png
	$(RUN) -m benchmarks.gpu

clean:  ## remove what runs and tests leave behind (not .venv)
	rm -rf outputs multirun .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: help setup demo test test-slow test-gpu lint format leaderboard experiments-smoke bench bench-gpu clean
