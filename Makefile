# make demo   sets up, renders the embedded data set, trains MTI-Net on it, evaluates, writes panels
# make test   sets up, checks format, lint and types, runs all quick tests (make test-slow: the slow ones)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo

.PHONY: demo test test-slow format lock clean

# One environment with all extras: the lock holds the versions everything was tested with.
$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable ".[dev,parity]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python scripts/train.py --config configs/demo.py --workdir $(RUN)
	$(BIN)/python scripts/evaluate.py --workdir $(RUN) --step best --constant_baseline
	$(BIN)/python scripts/predict.py --workdir $(RUN) --split val --limit 8 --out $(RUN)/predictions

test: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Writes the versions of the current environment down as the tested ones.
lock: $(VENV)/.installed-dev
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) build *.egg-info
