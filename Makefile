# Each target sets up what it needs in .venv; only python3 (3.11 or newer) and make must be there.

PYTHON ?= python3
BIN := .venv/bin
# Toy tensors are slower on two threads, and tests run side by side.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q -rfEs

.PHONY: help demo test quick check test-system test-live bench micro registry tables
help:
	@echo "make demo         train LoRA with and without its teacher, evaluate, report (3 minutes)"
	@echo "make quick        lint, types and fast tests (a few minutes on two cores)"
	@echo "make test         all tests but the long sweeps (about 10 minutes)"
	@echo "make check        ruff, format, mypy"
	@echo "make test-system  the long sweeps (under 40 minutes)"
	@echo "make test-live    try the live Hub, with a token of yours: REPO=ORG/NAME"
	@echo "make bench        time all that is timed, and write the tables (over an hour)"
	@echo "make micro        pretrain the micro pair anew, and all that depends on it (hours)"
	@echo "make registry     write registry/{adapters,parameters,pretrained}.toml from code and timm"
	@echo "make tables       write the tables and pictures of README and docs, and docs/families.md"

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "idat-zoo needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@ .venv/installed

demo: .venv/installed
	$(BIN)/idat train --task digits --adapter lora --out runs/demo --resume
	$(BIN)/idat train --task digits --adapter lora --teacher none --out runs/demo --resume
	$(BIN)/idat eval runs/demo
	$(BIN)/idat report runs/demo

test: .venv/installed-dev
	$(TEST) -m "not system"

quick: check
	$(TEST) -m "not slow and not system"

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p idat_zoo
	MYPYPATH=benchmarks $(BIN)/mypy benchmarks/*.py

test-system: .venv/installed-dev
	$(TEST) -m system

test-live: .venv/installed-dev
	@test -n "$(REPO)" || { echo "REPO=ORG/NAME: a repository of yours on the Hub to try in"; exit 2; }
	IDAT_LIVE_REPO=$(REPO) $(BIN)/python -m pytest -q tests/e2e/test_live.py

bench: .venv/installed-dev
	$(BIN)/python benchmarks/joint_step.py
	$(BIN)/python benchmarks/beside.py e269931
	$(BIN)/python benchmarks/peft_step.py
	$(BIN)/python benchmarks/last_blocks.py
	$(BIN)/python benchmarks/toggle.py
	$(BIN)/python benchmarks/cotrain.py
	$(BIN)/python benchmarks/whole_run.py
	$(BIN)/python benchmarks/startup.py --against e269931
	$(BIN)/python benchmarks/jobs.py
	$(BIN)/python tests/slurm_node.py $(BIN)/python benchmarks/executors.py
	$(BIN)/python benchmarks/ensemble.py
	$(BIN)/python benchmarks/memory.py --against e269931 --folder 50000
	$(BIN)/python benchmarks/mixed.py
	$(BIN)/python benchmarks/pool_stream.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python docs/write_tables.py
	$(BIN)/python docs/write_families.py

micro: .venv/installed-dev
	$(BIN)/python -m idat_zoo.backbones.weights.pretrain --images 614400
	$(BIN)/python benchmarks/micro.py
	$(BIN)/python benchmarks/zoo.py
	$(MAKE) tables

registry: .venv/installed
	$(BIN)/python -m idat_zoo.registry.write_adapters
	$(BIN)/python -m idat_zoo.registry.write_pretrained

tables: .venv/installed-dev
	$(BIN)/python docs/write_tables.py
	$(BIN)/python docs/write_families.py
	$(BIN)/python docs/write_pictures.py
