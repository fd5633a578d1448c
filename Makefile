.DEFAULT_GOAL := help
.PHONY: help install demo test lint format lock reliability gpu-benchmark clean

# The first Python that the embedded Triton supports; override with PYTHON=/path/to/python3.
PYTHON ?= $(shell for python in python3 python3.12 python3.11 python3.10; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' \
	2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# The onnxruntime of .venv and the one for GPUs cannot be in one environment.
GPU_VENV := .venv-gpu
GPU_READY := $(GPU_VENV)/.installed
ERRORS := $(VENV)/.errors
PYTEST := $(BIN)/python -m pytest
# tests/conftest.py says which tests run alone. A process that crashed is not replaced, since
# pytest-xdist would repeat the test that crashed, or wait for ever.
BESIDE := -m 'not alone' --cov --cov-report= --cov-fail-under=0 --numprocesses=2 --max-worker-restart=0
ALONE := -m alone --cov --cov-append
COMPILE := $(BIN)/uv pip compile --quiet --no-header --generate-hashes
COMPILE_IMAGE := $(COMPILE) --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
	--constraint requirements.lock
COMPILE_STEPS := $(COMPILE_IMAGE) --no-strip-markers --no-emit-package numpy

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 15

install: $(READY) ## Set up the environment in .venv

demo: $(READY) ## Build a model repository, serve it and classify a photograph
	@$(BIN)/python -m scripts.demo

# PYTEST_ARGS selects some of the tests, so their coverage says nothing about the whole. pytest writes
# the stacks of all threads to standard error if it crashes; a CI that keeps the end has them there.
test: lint ## Check style and types, run all tests, measure coverage
	@($(if $(PYTEST_ARGS),$(PYTEST) $(PYTEST_ARGS),$(PYTEST) $(BESIDE) && $(PYTEST) $(ALONE))) 2>$(ERRORS); \
		status=$$?; cat $(ERRORS) >&2; rm $(ERRORS); exit $$status

lint: $(READY) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY) ## Pin every dependency anew
	$(COMPILE) --upgrade --no-strip-extras --universal --python-version 3.10 pyproject.toml --group dev \
		--output-file requirements.lock
	$(COMPILE_IMAGE) --group build --output-file docker/build.lock
	$(COMPILE_STEPS) --group steps --output-file docker/steps-cpu.lock
	$(COMPILE_STEPS) --group gpu-steps --output-file docker/steps-gpu.lock

reliability: $(READY) ## Measure with faults and bad files, write docs/reliability.md (15 minutes)
	$(BIN)/python -m tests.reliability

gpu-benchmark: $(GPU_READY) ## Measure on a GPU in .venv-gpu; continues after a stop
	$(GPU_VENV)/bin/python -m scripts.gpu_benchmark $(GPU_BENCHMARK_ARGS)

clean: ## Remove the environment and all generated files
	rm -rf $(VENV) $(GPU_VENV) build dist *.egg-info .coverage* .mypy_cache .pytest_cache .ruff_cache \
		.model_repository.staging
	test ! -d model_repository || \
		find model_repository -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +

$(READY): requirements.lock
	@test -n "$(PYTHON)" || { echo "error: no Python 3.10, 3.11 or 3.12 with venv found;" \
		"install one (Debian, Ubuntu: python3-venv) or give its path: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version), which takes about a minute ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(GPU_READY): pyproject.toml
	@$(PYTHON) -m venv --clear $(GPU_VENV)
	@$(GPU_VENV)/bin/pip install --quiet --upgrade 'pip>=25.1' # knows --group
	@$(GPU_VENV)/bin/pip install --quiet --group gpu --group measure
	@touch $@
