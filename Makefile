# `make demo` and `make test` do all the set-up on a fresh Debian or Ubuntu; see scripts/setup.sh.
VENV := .venv
# A sourced ROS 2 whose rclpy is not the one in use must not hide it.
FOREIGN_ROS = $(and $(ROS_DISTRO),$(findstring pypi,$(shell cat $(VENV)/.made-with 2>/dev/null)))
PY = $(if $(FOREIGN_ROS),env -u PYTHONPATH) $(VENV)/bin/python

.PHONY: demo test bench lint setup-demo setup-test setup-bench clean

demo: setup-demo
	@$(PY) -m z1_ros.commands demo $(ARGS)

test: setup-test
	@$(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

bench: setup-bench
	@$(PY) -m z1_ros.commands bench $(or $(ARGS),sim --lift-python $(VENV)/lift/bin/python)

lint: setup-test
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

setup-demo:
	@scripts/setup.sh demo

setup-test:
	@scripts/setup.sh test

setup-bench:
	@scripts/setup.sh bench

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
