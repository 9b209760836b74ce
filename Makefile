# `make demo` and `make test` do all the set-up on a fresh Debian or Ubuntu; see scripts/setup.sh.
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo test bench lint setup-demo setup-test setup-bench clean

demo: setup-demo
	@$(PY) -m z1_ros.nodes.demo $(ARGS)

test: setup-test
	@$(PY) -m pytest $(ARGS)

bench: setup-bench
	@$(PY) -m z1_ros.nodes.bench $(or $(ARGS),sim --lift-python $(VENV)/lift/bin/python)

lint: setup-test
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

setup-demo:
	@scripts/setup.sh demo

setup-test:
	@scripts/setup.sh test

setup-bench:
	@scripts/setup.sh bench

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
