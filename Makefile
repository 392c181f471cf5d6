# Everything runs from .venv, which the first target that needs it makes. Needs Python 3.11 or newer and a C compiler.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: venv test test-slow test-peers demo clean

venv: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d: run make PYTHON=python3.11 or newer" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

test: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pytest -m "not slow and not peers"

test-slow: venv
	$(BIN)/pytest -m slow

test-peers: venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,peers]'
	$(BIN)/pytest -m peers

demo: venv
	$(BIN)/sim demo

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
