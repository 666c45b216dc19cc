# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test setup check bench soak protos test-gpu format clean
.DELETE_ON_ERROR:

demo: $(VENV)/run.stamp  ## the whole system, live in this terminal (DEMO_SECONDS=N ends it)
	@$(BIN)/risk demo

test: $(VENV)/test.stamp  ## the whole suite, real Kafka included where there is Java, Docker or a broker
	@$(BIN)/python -m pytest tests -n 2 --dist loadgroup $(PYTEST_ARGS)

setup: $(VENV)/test.stamp  ## .venv with run-time and test dependencies

check: $(VENV)/dev.stamp  ## format, lint, types, import floors, stubs match the schemas
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m protos.generate --check

format: $(VENV)/dev.stamp
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

protos: $(VENV)/dev.stamp  ## regenerate the stubs from the schemas
	@$(BIN)/python -m protos.generate

bench: $(VENV)/bench.stamp  ## side by side with peers, into benchmarks/results/
	@$(BIN)/python -m benchmarks

soak: $(VENV)/test.stamp  ## long fault campaigns
	@$(BIN)/python -m pytest tests -m soak -o addopts="-q --strict-markers --strict-config" $(PYTEST_ARGS)

# On a bare CUDA machine: its own Python, with only numpy, cupy and jax.
test-gpu:
	@$(PYTHON) -m pytest tests/gpu_kernels -m gpu -p no:cacheprovider -o addopts="" -o asyncio_mode= -q

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache

# One stamp per set of dependencies, so that a second call costs nothing.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=…")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing run-time dependencies into $(VENV) (once)" >&2
	@$(PIP) --editable '.[service]'
	@echo "compiling the kernels for this machine (once; a minute or two, more on a busy one)" >&2
	@$(BIN)/risk warm-up --services
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	@echo "installing test dependencies into $(VENV) (once)" >&2
	@$(PIP) --editable '.[service,dataframes,notebook,test]'
	@$(BIN)/risk warm-up
	@touch $@

$(VENV)/bench.stamp: $(VENV)/test.stamp
	@echo "installing the peers of the benchmarks into $(VENV) (once)" >&2
	@$(PIP) --editable '.[service,dataframes,notebook,test,bench]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/test.stamp
	@echo "installing linters and type checkers into $(VENV) (once)" >&2
	@$(PIP) --editable '.[service,dataframes,notebook,test,dev]'
	@touch $@
