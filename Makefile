# make venv: .venv with everything. make demo: the main job. make test: the tests. Each alone is enough from a fresh clone.
PYTHON ?= $(firstword $(shell for p in python3.11 python3.12 python3.10 python3; do $$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p; done))
BIN := .venv/bin

.PHONY: venv demo test lint soak clean

venv: .venv/ready

.venv/ready: pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 is needed: install it, or run make PYTHON=/path/to/python"; exit 1; }
	@echo "Making .venv with $(PYTHON): PyTorch, Slicer's libraries and the tools for tests (some GB; minutes)."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

demo: venv
	$(BIN)/python -m tools.demo demo

test: venv lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

soak: venv
	$(BIN)/python -m benchmarks.soak

clean:
	rm -rf .venv demo
