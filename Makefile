# Two commands matter: `make demo` trains a real swarm on real data, `make test` passes the tests.
# Both set up what they need in .venv and work from a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test unit check docs clean

help:
	@echo "make demo    train a real swarm of 4 processes on Fashion-MNIST (sets everything up first)"
	@echo "make test    all tests (sets everything up first)"
	@echo "make unit    the tests that start no process, under a minute"
	@echo "make check   format, lint, types, unit tests"
	@echo "make docs    the docs as a site, in build/site"
	@echo "make clean   remove what the others made"

$(READY): pyproject.toml constraints.txt
	@echo "== setting up $(VENV) (once; PyTorch is the large part)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' \
		|| { echo "== the installation failed; the lines above say why. Nothing else was changed."; exit 1; }
	@echo "== compiling the kernels (once)"
	@$(BIN)/python -c "from swarmsgd.codec import kernels; kernels.prepare()"
	@touch $@

demo: $(READY)
	@echo "== training a swarm: 4 processes, no barrier, Fashion-MNIST, 4 passes over the data"
	@$(BIN)/swarmsgd train vision --dataset fashion-mnist --nodes 4 --epochs 4 --out runs/demo --overwrite
	@$(BIN)/swarmsgd report runs/demo

test: $(READY)
	@echo "== all tests"
	@$(BIN)/python -m pytest -n 2 --dist worksteal

unit: $(READY)
	@$(BIN)/python -m pytest -m "not slow"

check: $(READY)
	@scripts/check

docs: $(READY)
	@$(BIN)/python -m sphinx -q -W --keep-going -c docs . build/site
	@echo "== build/site/index.html"

clean:
	rm -rf $(VENV) runs build .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
