# make quickstart   set up, then predict, test, fine-tune and export the pretrained network on images in the repository
# make quickstart IMAGE=me.jpg   the same, and predict an image of yours first
# make live         set up, build a web page that runs the networks in the browser (needs npm), and serve it
# make live-build   the same without serving it; NETWORK=x.onnx make live selects the pose network
# make test         set up, lint, type-check and run all tests that are not marked slow
# make test-all     the same, including the slow tests
# make docs         build the documentation site in build/docs/, with its links checked
# PYTHON=python3.12 make ...   selects the interpreter of the virtual environment

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Tests start many processes, which reuse compiled modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart live live-build docs test test-all lint style types pytest-quick pytest-all clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "posedy needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Stamp files record the installed set of packages, so that a second make installs nothing.
$(VENV)/.export: pyproject.toml | $(BIN)/python
	@echo "installing posedy and its packages into $(VENV), which takes minutes with a slow network"
	$(BIN)/python -m pip install --quiet --editable '.[export]'
	@touch $@

$(VENV)/.all: pyproject.toml | $(BIN)/python
	@echo "installing posedy and its packages into $(VENV), which takes minutes with a slow network"
	$(BIN)/python -m pip install --quiet --editable '.[export,app,fast,video,ray,docs,dev]'
	@touch $@ $(VENV)/.export

quickstart: $(VENV)/.export
	$(BIN)/python -m tools.lab.quickstart $(if $(IMAGE),"$(IMAGE)")

live: live-build
	$(BIN)/python -m tools.live.serve $(if $(PORT),--port $(PORT))

live-build: $(VENV)/.export
	$(BIN)/python -m tools.live.build $(if $(NETWORK),--network "$(NETWORK)")

docs: $(VENV)/.all
	$(BIN)/python -m tools.docs.generate --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "build/docs/index.html is the site; its search needs a server: python3 -m http.server --directory build/docs"

lint: style types

style: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.all
	$(BIN)/mypy

pytest-quick: $(VENV)/.all
	$(BIN)/pytest -n 2 --dist loadfile -m 'not slow' --durations=10

pytest-all: $(VENV)/.all
	$(BIN)/pytest -n 2 --dist loadfile --durations=20

# The types are checked at the same time as the tests run, which leave parts of two cores idle.
test: style
	@$(MAKE) --no-print-directory -j2 types pytest-quick

test-all: style docs
	@$(MAKE) --no-print-directory -j2 types pytest-all

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find posedy tools tests -name __pycache__ -type d -prune -exec rm -rf {} +
