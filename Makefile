# Each target sets up .venv by itself when it is missing or older than pyproject.toml.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHARDS := shards/mnist
# DeepSpeed would try to compile its operators at installation; it does so at first use instead.
export DS_BUILD_OPS := 0

.PHONY: demo test test-quick test-proofs test-slurm test-gpu lint bench clean
.DELETE_ON_ERROR:

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gesso needs Python 3.11 or newer; make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV) (a few minutes and 7 GB the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --upgrade-strategy only-if-needed -e '.[dev]'
	@$(BIN)/python -m compileall -q -j 0 $(VENV)/lib > /dev/null 2>&1 || true # on all cores, of which pip would use one
	@touch $@

# Trains a GAN on MNIST for some minutes on two cores.
demo: $(VENV)/.ready
	@test -f $(SHARDS)/manifest.json || $(BIN)/gesso shards build mnist $(SHARDS) --size 32
	@$(BIN)/python -m gesso.cli.demo

# Everything but the long proofs and what needs a GPU: three files at a time, on a thread each, as much of it is waiting for processes; then
# what brings up a SLURM, two at a time. A test that takes its process down is named; pytest-xdist would lose its way, and
# the name, where it begins another process in time.
test: $(VENV)/.ready
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not (proof or gpu or slurm)" -n 3 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder
	@$(BIN)/python -m pytest -m "slurm and not (proof or gpu)" -n 2 --max-worker-restart 0 --dist loadgroup --no-loadscope-reorder

# The inner loop, under a minute on two cores: what fetches nothing, starts no process and takes no second.
test-quick: $(VENV)/.ready
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not (network or process or slow or proof or slurm or gpu)" -n 2 --dist loadfile

# What takes minutes a test, to be run once for a change that it is about: whole sweeps, whole sets of reference numbers.
test-proofs: $(VENV)/.ready
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "proof and not (gpu or slurm)" -n 2 --dist loadfile

# What is to be seen on GPUs, in one table within 8 minutes: docs/gpu.md. CARRIED=FOLDER: a machine without a network,
# with what tests/gpu/pack.sh has collected; PARTS="train_ddp step": some of it.
test-gpu: $(if $(CARRIED),,$(VENV)/.ready)
	@$(if $(CARRIED),tests/gpu/run.sh "$(CARRIED)",$(BIN)/python -m tests.gpu) $(PARTS)

# On a SLURM of its own, of two virtual nodes, with 100 preemptions: about an hour on two cores.
test-slurm: $(VENV)/.ready
	@GESSO_TEST_SIGNALS=$${GESSO_TEST_SIGNALS:-100} $(BIN)/python -m pytest -s tests/slurm

lint: $(VENV)/.ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: $(VENV)/.ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@$(BIN)/python -m tests.benchmarks

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
