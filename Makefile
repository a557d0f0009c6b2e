# Two commands for a machine with nothing but Python 3.11 or newer: make demo, make test.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test newest wheels lint docs figures gallery bench gpu kernels sanitize clean

demo: $(VENV)/ready
	$(RUN) examples/demo.py --out demo_out

test: $(VENV)/ready kernels
	$(RUN) -m pytest parity_tests

# A newer Python where the machine has one, with the newest jax that pip finds.
newest: $(VENV)/ready kernels
	$(RUN) .ci/newest.py

# Before a release: source distribution and wheel, in environments with one framework each, and without a compiler.
wheels: $(VENV)/ready
	$(RUN) .ci/wheels.py

# The compiled CPU kernels, in place: an editable install does not notice that their source changed.
kernels: $(VENV)/kernels
$(VENV)/kernels: $(wildcard bandhess_common/kernels/*.cc bandhess_common/kernels/*.h bandhess_common/kernels/*/*.h) setup.py | $(VENV)/ready
	$(RUN) setup.py -q build_ext --inplace --force
	touch $@

# The kernels' tests with AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of the package.
SANITIZED := build/sanitize/bandhess_common
sanitize: $(VENV)/ready
	rm -rf $(SANITIZED) && mkdir -p build/sanitize && cp -r bandhess_* build/sanitize && rm -f $(SANITIZED)/kernels/*.so
	$(CXX) -std=c++17 -O1 -g -fPIC -shared -fsanitize=address,undefined -fno-sanitize-recover=undefined -Wno-psabi \
	    -isystem "$$($(RUN) -c 'import jax; print(jax.ffi.include_dir())')" \
	    -pthread bandhess_common/kernels/*.cc -o $(SANITIZED)/kernels/_kernels.abi3.so
	cd build/sanitize && ASAN_OPTIONS=detect_leaks=0 \
	    LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	    $(abspath $(RUN)) -m pytest -p no:cacheprovider \
	    $(addprefix $(abspath parity_tests)/test_,$(addsuffix .py,cpu_kernels cpu_decoding border_kernel tiles \
	        arithmetic_torch newton_compiled_jax \
        $(addprefix interior_,engine alone gram gain narrow scales shared certificates units)))

lint: $(VENV)/ready
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# Runs every block of every page and every script of the gallery, then builds the site, warnings being errors. With
# XLA_FLAGS empty they are compiled as for users.
docs: $(VENV)/docs kernels
	XLA_FLAGS= $(RUN) -m pytest --dist load -m 'site or not site' parity_tests/test_docs.py parity_tests/test_gallery.py
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

$(VENV)/docs: pyproject.toml constraints.txt | $(VENV)/ready
	$(RUN) -m pip install -q mkdocs mkdocs-material 'mkdocstrings[python]' -c constraints.txt
	touch $@

# The pictures of the site, which are committed: those of the explanation, and those of the gallery (two minutes).
figures: $(VENV)/ready
	for script in $$(grep -l 'from draw import' docs/figures/*.py); do $(RUN) $$script || exit 1; done

gallery: $(VENV)/ready kernels
	for script in $$(grep -l 'from gallery import' examples/*.py); do \
	    $(RUN) $$script --out docs/images/gallery || exit 1; done

bench: $(VENV)/ready
	$(RUN) -m pip install -q -e '.[bench]' -c constraints.txt
	$(RUN) benchmarks/extraction.py
	$(RUN) benchmarks/solve.py
	$(RUN) benchmarks/batch.py
	$(RUN) benchmarks/probing.py
	$(RUN) benchmarks/memory.py
	$(RUN) benchmarks/structures.py
	$(RUN) benchmarks/cores.py
	$(RUN) benchmarks/sqp.py
	$(RUN) benchmarks/convex.py
	$(RUN) benchmarks/newton.py
	$(RUN) benchmarks/kalman.py
	$(RUN) benchmarks/scale.py

# With the interpreter as it is, nothing installed: torch, jax, numpy, scipy, pytest, chex and hypothesis must be there.
gpu:
	$(PYTHON) benchmarks/gpu_check.py

# constraints.txt pins what is tested; an unpinned torch would bring gigabytes of CUDA packages.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bandhess needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q 'setuptools>=77' jaxlib -c constraints.txt
	$(RUN) -m pip install -q --no-build-isolation -e '.[dev]' -c constraints.txt
	touch $@ $(VENV)/kernels

clean:
	rm -rf $(VENV) demo_out gallery_out site build *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
