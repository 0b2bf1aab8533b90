# make demo: set up and punch a hole.  make test: set up and run every check.
# make coverage: the same tests, and which lines they miss.
# make matrix: run the NAT matrix and write it into the documentation.
# make benchmarks: every stack of this machine on the datagram path, into docs/performance.md (root, 20 minutes).
# make soak: 10,000 sessions under arbitrary schedules.  make fuzz SECONDS=60: fuzz each parser and the agent.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?= 60
# Three files at a time, for many tests wait for real networks; then those whose subject is time itself.
TOGETHER := -n 3 --dist loadfile --no-loadscope-reorder -m 'not alone'
ALONE := -m alone

.PHONY: demo test coverage check matrix benchmarks soak fuzz setup clean

demo: $(VENV)/ready
	@scripts/setup-system demo
	@$(BIN)/ice-punch demo

test: $(VENV)/ready
	@scripts/setup-system test
	@$(MAKE) --no-print-directory check
	@$(BIN)/pytest $(TOGETHER)
	@$(BIN)/pytest $(ALONE)

coverage: $(VENV)/ready
	@scripts/setup-system test
	@$(BIN)/pytest $(TOGETHER) --cov --cov-report=
	@$(BIN)/pytest $(ALONE) --cov --cov-append --cov-report=term:skip-covered

check: $(VENV)/ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

matrix: $(VENV)/ready
	@$(BIN)/ice-punch lab matrix --markdown docs/reference/nat-matrix.md

benchmarks: $(VENV)/ready
	@scripts/setup-benchmarks $(VENV)
	@$(BIN)/python benchmarks/datagrams.py

soak: $(VENV)/ready
	@ICE_PUNCH_SOAK=soak $(BIN)/pytest tests/soak

fuzz: $(VENV)/ready
	@scripts/fuzz $(VENV) $(SECONDS)

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml scripts/setup-python
	@scripts/setup-python $(PYTHON) $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
