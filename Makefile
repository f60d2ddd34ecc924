# The verbs of this repository. `make` alone prints them; the text after ## is what it prints.

SHELL := /bin/bash
BIN := .venv/bin
ARGS ?=
# For the verbs of whoever is woken up: they change nothing, least of all the environment.
INSTALLED = @test -x $(BIN)/penstock || { echo "there is no $(BIN); type: make setup" >&2; exit 2; }

.DEFAULT_GOAL := help
.PHONY: help setup stores rtx run up down status logs test test-gpu images test-images check format lock golden bench clean

help: ## print these lines
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)$$/  make \1|\2/' | \
		while IFS='|' read -r verb says; do printf '%-17s %s\n' "$$verb" "$$says"; done

setup: ## make .venv from the lock; needs Python 3.11 and nothing else
	@scripts/setup.sh

stores: setup ## add Spark, PostgreSQL and DuckDB stores, for their tests and benchmarks
	@scripts/setup.sh stores

rtx: setup ## add TensorRT-RTX, which builds int8 engines on a CPU; proprietary, so only when asked
	@scripts/setup.sh rtx

run: setup ## carry the digits workload through every stage and release it
	@$(BIN)/penstock run digits $(ARGS)

up: setup ## start the servers with the present champion
	@$(BIN)/penstock up $(ARGS)

down: ## stop the servers
	$(INSTALLED)
	@$(BIN)/penstock down $(ARGS)

status: ## say what is serving, and how traffic is split
	$(INSTALLED)
	@$(BIN)/penstock status $(ARGS)

logs: ## what the servers say; ARGS="a --follow" for one slot
	$(INSTALLED)
	@$(BIN)/penstock logs $(ARGS)

test: setup ## run every test this machine can run
	@scripts/test.sh $(ARGS)

test-gpu: setup ## run the tests that need an NVIDIA GPU, on a machine with one
	@$(BIN)/pytest -m gpu tests/gpu $(ARGS)

images: ## build the images of a cluster's steps with buildah; ARGS="--base REF" for another base
	@scripts/images.sh $(ARGS)

test-images: setup ## build the images, run the digits pipeline in them, compare its bytes; minutes, 25 GB
	@$(BIN)/pytest -m images tests/images $(ARGS)

check: setup ## format, lint, types, import contracts, shell scripts, docs, requirement files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/shellcheck .ci/run scripts/*.sh
	$(BIN)/pytest -q tests/house

format: setup ## rewrite sources in the house format, and mend what ruff can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: setup ## resolve pyproject.toml into requirements/; ARGS=--upgrade moves every pin
	@scripts/lock.sh $(ARGS)

golden: setup ## rewrite the golden files in tests/golden; review the difference
	@PENSTOCK_GOLDEN=rewrite $(BIN)/pytest -q tests/golden $(ARGS)

bench: setup ## measure a run: seconds per stage, peak memory, where the time goes
	@$(BIN)/python -m benchmarks.run $(ARGS)

clean: ## remove the environment and caches; .penstock, with runs and registry, stays
	rm -rf .venv .venv-bootstrap .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf build dist .coverage .coverage.*
	find . -name __pycache__ -prune -exec rm -rf {} +
