# Two commands for a machine with nothing but Python 3.11 or newer: make demo, make test.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint bench clean

demo: $(VENV)/ready
	$(RUN) examples/demo.py --out demo_out

test: $(VENV)/ready
	$(RUN) -m pytest parity_tests

lint: $(VENV)/ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/ready
	$(RUN) -m pip install -q -e '.[bench]' -c constraints.txt
	$(RUN) benchmarks/extraction.py
	$(RUN) benchmarks/solve.py
	$(RUN) benchmarks/probing.py
	$(RUN) benchmarks/memory.py
	$(RUN) benchmarks/sqp.py
	$(RUN) benchmarks/newton.py

# constraints.txt pins what is tested; an unpinned torch would bring gigabytes of CUDA packages.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bandhess needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q -e '.[dev]' -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV) demo_out build *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
