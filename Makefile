# Two commands do everything: `make demo` and `make test`. Each creates .venv first if need be.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Every branch of what decides is tested by its unit tests; `make test` fails below 100 %. Only these tests run under
# coverage: tracing adds half to the time of all others. The exhaustive walk is left out, for it takes a minute.
KERNEL_TESTS := tests/saga tests/http_parts tests/actors/test_restarts.py
KERNEL_TESTS += tests/test_idempotency.py tests/test_jsonvalue.py tests/test_retry.py
KERNEL := */saga/*,*/tasks/retry.py,*/tasks/jsonvalue.py,*/tasks/idempotency.py,*/actors/restarts.py
KERNEL := $(KERNEL),*/http/canonical.py,*/http/fingerprint.py,*/http/keys.py,*/http/multipart.py,*/http/replay.py,*/http/scope.py

.DEFAULT_GOAL := help
.PHONY: help demo test coverage lint chaos bench bench-quick clean venv

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "%-12s %s\n", $$1, $$2}'

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

venv: $(READY)  ## create .venv and install everything into it

demo: $(READY)  ## three sagas, live in the terminal: one succeeds, one is undone, one survives a kill
	$(BIN)/dotmac-tasks demo

lint: $(READY)  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## lint, coverage of the kernel by its unit tests, then all tests
	$(BIN)/python -m pytest -q -n 2 -m "not slow" $(KERNEL_TESTS) --deselect tests/saga/test_walk.py \
		--cov=dotmac.tasks --cov-report=
	@$(BIN)/coverage report --include='$(KERNEL)' --fail-under=100 > .coverage-kernel || { cat .coverage-kernel; exit 1; }
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

coverage: $(READY)  ## all tests, with the branch coverage of every module
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" --cov=dotmac.tasks --cov-report=term

chaos: $(READY)  ## kill, freeze and cut off everything for MINUTES (3), then check every promise
	CHAOS_MINUTES=$(or $(MINUTES),3) $(BIN)/python -m pytest -s tests/chaos/test_chaos.py \
		-o faulthandler_timeout=$$(awk 'BEGIN { print $(or $(MINUTES),3) * 60 + 240 }')

bench: $(READY)  ## print the figures beside limits and peers, in one table (SECTIONS: some of it)
	$(BIN)/python benchmarks/table.py $(SECTIONS)

bench-quick: $(READY)  ## check ratios that must not get worse
	$(BIN)/python benchmarks/table.py quick

clean:  ## remove what the other targets made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage-kernel htmlcov build dist
	rm -rf benchmarks/.peers benchmarks/results
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
