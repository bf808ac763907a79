# make demo   sets up, renders the embedded data set, trains MTI-Net on it, evaluates, writes panels
# make test   sets up, checks format, lint and types, runs all quick tests (make test-slow: the slow ones;
#             make test-versions: a core of the quick ones with the newest Python and packages)
# make bench-gpu   measures speed beside PyTorch on an NVIDIA GPU with the jax, flax and torch of $(PYTHON), not yet
#                  tried on one; each of its parts can be made alone. Without a network: `make wheels` somewhere else first

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo

.PHONY: demo test test-slow test-versions format lock clean wheels bench-gpu bench-packages

# One environment with all extras: the lock holds the versions everything was tested with.
$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable .
	touch $@

# LibMTL, with which methods of task balancing are compared, asks for a torchvision that these do not need.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable ".[dev,parity]"
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --no-deps LibMTL
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

# The core of the quick tests with the newest versions that pyproject.toml allows, in an environment of its own; `make
# test` has the oldest jax and flax. Tests that compare with PyTorch are skipped. The tests run in Flax's tree mode, which
# will be its default.
NEWEST_PYTHON ?= python3.13
NEWEST := $(VENV)-newest
CORE := $(addprefix tests/,nn backbones heads losses metrics weights balancing models inference test_command_line.py) \
    $(addprefix tests/train/,test_step.py test_fit.py test_devices.py)

$(NEWEST)/.installed: pyproject.toml
	$(NEWEST_PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade --editable ".[plots,onnx]" onnxruntime "pytest>=9,<9.2" \
	    "pytest-xdist>=3.8,<4" "scikit-image>=0.25,<0.27"
	touch $@

test-versions: $(NEWEST)/.installed
	NNX_GRAPH_MODE=false NNX_GRAPH_UPDATES=false $(NEWEST)/bin/python -m pytest $(CORE)

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Writes the versions of the current environment down as the tested ones.
lock: $(VENV)/.installed-dev
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

# What the benchmarks import beside jax, flax, optax, Orbax, torch, their dependencies, and OpenCV, whose 58 MiB a machine
# for such work has: EXTRA_WHEELS=opencv-python-headless where it does not.
BENCH_PACKAGES := absl-py array_record cloudpickle etils filelock grain immutabledict portpicker promise \
    protobuf safetensors simplejpeg six tensorflow-datasets tensorflow-metadata toml tqdm wrapt
EXTRA_WHEELS ?=
WHEELS ?= wheels
PYTHON_VERSION ?= 3.12
PLATFORMS := $(addprefix --platform ,manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux2014_x86_64)

# Brings along what a machine without a network may lack, in the tested versions.
wheels:
	rm -rf $(WHEELS)
	$(PYTHON) -m pip download --no-deps --only-binary=:all: --python-version $(PYTHON_VERSION) $(PLATFORMS) \
	    --constraint requirements.lock --dest $(WHEELS) $(filter-out promise,$(BENCH_PACKAGES)) $(EXTRA_WHEELS)
	$(PYTHON) -m pip wheel --no-deps --constraint requirements.lock --wheel-dir $(WHEELS) promise  # source alone
	du -sh $(WHEELS)

BENCH_SITE := build/bench-site
bench-packages:
	rm -rf $(BENCH_SITE)
	missing=""; for name in $(BENCH_PACKAGES) $(EXTRA_WHEELS); do \
	    $(PYTHON) -c "from importlib.metadata import version; version('$$name')" 2>/dev/null || missing="$$missing $$name"; \
	done; \
	test -z "$$missing" || $(PYTHON) -m pip install --quiet --no-index --no-deps --find-links $(WHEELS) \
	    --target $(BENCH_SITE) $$missing

# The benchmarks by name, the most important first; BENCH_FLAGS adds to each of them or changes it.
OUT ?= bench
BENCH_FLAGS ?=
BENCHES := $(addprefix bench-,train-mtinet train-baseline infer infer-batch train-mtinet-float32 compile eval input)
.PHONY: $(BENCHES)

against := --against eager,channels_last,compile_channels_last
bf16 := --config.model.dtype=bfloat16
mtinet := --config configs/nyud_mtinet.py:aux=edge+normals
bench_train-mtinet := train $(mtinet) $(bf16) $(against) --repeats 10 --steps 10
bench_train-baseline := train --config configs/pascal_baseline.py $(bf16) $(against) --repeats 10 --steps 10
bench_train-mtinet-float32 := train $(mtinet) $(against) --repeats 5 --steps 10
bench_infer := infer $(mtinet) $(bf16) $(against) --repeats 30
bench_infer-batch := infer $(mtinet) $(bf16) $(against) --infer_batch 8 --repeats 10 --steps 10
bench_compile := compile $(mtinet) $(bf16) --against compile_channels_last
bench_eval := eval $(mtinet) $(bf16) --against channels_last --repeats 5
# PASCAL's files need numba, too: EXTRA_WHEELS="numba llvmlite", and BENCH_FLAGS="--recipe pascal".
bench_input := input --recipe nyud_astmt --recipe nyud_survey --workers 1,16

# One GPU, as PyTorch uses.
export CUDA_VISIBLE_DEVICES ?= 0

# The machine's own packages are used as they are; the repository and what was missing come before them.
$(BENCHES): bench-%: bench-packages
	PYTHONPATH=.:$(BENCH_SITE)$${PYTHONPATH:+:$$PYTHONPATH} $(PYTHON) scripts/benchmark.py $(bench_$*) --json $(OUT)/$*.json $(BENCH_FLAGS)

# One that fails does not stop the others; the status says so at the end.
bench-gpu:
	$(MAKE) --keep-going --jobs=1 $(BENCHES)

clean:
	rm -rf $(VENV) build *.egg-info
