PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile

setup: $(READY) ## make .venv and install everything into it, the compiled kernel included

demo: $(READY) ## run stages 1 to 5 on the embedded demo
	$(BIN)/python -m tools.demo

learn: $(READY) ## teach the demo's network what was found, and judge it; after `make demo`
	$(BIN)/python -m tools.learn

map: $(READY) ## from a folder to a map of suspicious segments: PICTURES=folder MODEL=hf/name
	$(BIN)/python -m tools.map "$(PICTURES)" "$(MODEL)"

test: $(READY) ## run the tests
	$(BIN)/python -m pytest

faults: $(READY) ## inject faults into every stage and count what they survive: some 20 minutes
	FAULTS=many $(BIN)/python -m pytest -q -m promise

lint: $(READY) ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/cython-lint src

bench: $(READY) ## measure speed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/kernel.py
	$(BIN)/python benchmarks/stage2.py
	$(BIN)/python benchmarks/cache.py
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/embeddings.py
	$(BIN)/python benchmarks/gpu.py
	$(BIN)/python benchmarks/stage4.py 500
	$(BIN)/python benchmarks/done.py 500
	$(BIN)/python benchmarks/explorer.py
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/cluster.py

# the kernel is compiled by the installation, so a changed kernel installs again
$(READY): pyproject.toml constraints.txt src/MetaSeg/_segments.pyx src/MetaSeg/_pixels.h
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	@$(PYTHON) -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")) and "Python.h is missing: install the headers of Python (Debian, Ubuntu: python3-dev)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev,qt]'
	@touch $@

.PHONY: help setup demo learn map test faults lint bench
