# Everything runs from .venv, which the first target that needs it makes. Needs Python 3.11 or newer and a C compiler.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
FOUNDATION := controllers/policies/quad-foundation.onnx
DEMO := runs/demo

.PHONY: venv test test-slow test-peers demo clean

venv: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is %d.%d: run make PYTHON=python3.11 or newer" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

.venv/tools: .venv/installed
	$(PIP) -e '.[dev]'
	@touch $@

test: .venv/tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pytest -m "not slow and not peers"

test-slow: .venv/tools
	$(BIN)/pytest -m slow

test-peers: .venv/tools
	$(PIP) -e '.[dev,peers]'
	$(BIN)/pytest -m peers

# The demonstration: each file below is made once, and an interrupted training goes on when `make demo` runs again.
demo: $(DEMO)/eval.json $(DEMO)/g1.json
	$(BIN)/sim report $(DEMO)

# $(call train,FOLDER,TRAINING): begin, or go on where an interrupted one stopped.
train = @set -x; if [ -e $(1)/config.json ]; then $(BIN)/sim resume $(1); else $(BIN)/sim train $(2) --out $(1); fi

$(DEMO)/teachers/teachers.npz: | .venv/installed
	@mkdir -p $(DEMO)
	$(call train,$(DEMO)/teachers,quad-teachers --count 1000 --preset wide --quick)

$(DEMO)/student/metrics/summary.json: $(DEMO)/teachers/teachers.npz
	$(call train,$(DEMO)/student,quad-student --teachers $(DEMO)/teachers --imitation-updates 1500 --tuning-updates 4000)

$(DEMO)/c/student/student.so: $(DEMO)/student/metrics/summary.json
	$(BIN)/firmware-export c $(DEMO)/student/policy.onnx -o $(@D) --name student --shared

$(DEMO)/c/foundation/quad_foundation.so: $(FOUNDATION) | .venv/installed
	$(BIN)/firmware-export c $(FOUNDATION) -o $(@D) --name quad_foundation --shared

$(DEMO)/eval.json: $(DEMO)/c/student/student.so $(DEMO)/c/foundation/quad_foundation.so
	$(BIN)/sim eval quad $(DEMO)/student/policy.onnx $(FOUNDATION) $^ --count 256 --threads 1 -o $@

# The humanoid: one policy on motions of ours, in random worlds.
$(DEMO)/g1.json: controllers/policies/g1-eight.onnx | .venv/installed
	@mkdir -p $(DEMO)
	$(BIN)/sim eval g1 $< --clip $(wildcard sim/motions/library/*.npz) --worlds 32 -o $@

clean:
	rm -rf .venv $(DEMO) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
