# make quickstart   set up, show the shipped network on drawn people, train and test a small one on them
# make quickstart PHOTO=me.jpg   the same, after the shipped network's view of a photo of one person
# make test         set up, then lint, types and every test that is not marked slow
# make test-all     the same with the slow tests
# PYTHON=python3.12 make ...   uses that interpreter for the virtual environment

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Tests start many processes, which share the compiled modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test test-all lint clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "posedy needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp file says which set of packages the environment holds, so that a second make installs nothing.
$(VENV)/.core: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.all: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[export,app,fast,dev]'
	@touch $@ $(VENV)/.core

quickstart: $(VENV)/.core
	$(BIN)/python -m tools.lab.quickstart $(if $(PHOTO),"$(PHOTO)")

lint: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n 2 --dist loadfile -m 'not slow' --durations=10

test-all: lint
	$(BIN)/pytest -n 2 --dist loadfile --durations=20

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find posedy tools tests -name __pycache__ -type d -prune -exec rm -rf {} +
