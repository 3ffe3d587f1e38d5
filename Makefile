# Every target works from a fresh clone: .venv is made from requirements.lock on first use.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
# Test files that run side by side: many wait for daemons, so a few more than the cores.
WORKERS ?= 3
BENCHMARKS := engine faults api twin twinreal federation placement forecasting metering te transfer lab steering selective_search realrun console

.PHONY: demo test check console bench soak lock clean

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install --quiet uv==$(shell cat .uv-version)
	$(RUN)/uv pip install --quiet --python $(RUN)/python --require-hashes -r requirements.lock
	$(RUN)/uv pip install --quiet --python $(RUN)/python --no-deps -e .
	touch $@

demo: $(VENV)/.installed           ## the main job, on real centres started on this machine (KEEP=1 leaves it running)
	$(RUN)/python -m isthmus.lab.packages
	$(RUN)/isthmus demo $(if $(KEEP),--keep)

test: $(VENV)/.installed           ## every test, real daemons included
	$(RUN)/python -m isthmus.lab.packages
	$(RUN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder

check: $(VENV)/.installed          ## ruff, mypy strict, import-linter, the built console
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports --no-cache
	$(RUN)/python frontend/build.py --check

console: $(VENV)/.installed        ## build the web page from frontend/ (needs Node 20)
	$(RUN)/python frontend/build.py

bench: $(VENV)/.installed          ## every published figure (hours); what lacks its data or its rights is named at the end
	@left=""; for name in $(BENCHMARKS); do echo "== $$name"; \
	  $(RUN)/python -m benchmarks.$$name --json || left="$$left $$name"; done; \
	if [ -n "$$left" ]; then echo "without an answer, or with one that is not good:$$left" >&2; exit 1; fi

soak: $(VENV)/.installed           ## exhaustive faults and a day of a national platform (very long)
	$(RUN)/python -m pytest -m soak --timeout 0
	$(RUN)/python -m benchmarks.faults --histories 1000 --json
	$(RUN)/python -m benchmarks.engine --soak 250000 --json

lock:                              ## re-resolve requirements.lock from pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  pyproject.toml --group dev -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
