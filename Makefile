# make demo    the whole recipe on this machine: SFT, preferences, reward model, GRPO, evaluation, report
# make test    the tests
# make chaos   kills every kind of worker, and the driver, in every phase of a run, and prints what it cost
# make clean   removes the environment and what was built; runs/ stays
# make check   format, lint, types, architecture, tests: what a change has to pass
PY := .venv/bin/python

.PHONY: setup demo test test-slow chaos check lint lock clean

setup:
	@requirements/setup.sh

demo: setup
	.venv/bin/assay recipe configs/demo.yaml

test: setup
	$(PY) -m pytest -m "not slow and not gpu"

test-slow: setup
	$(PY) -m pytest -m "slow and not gpu"

chaos: setup
	$(PY) -m pytest tests/chaos -s

lint: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

check: lint test

lock: setup
	$(PY) requirements/lock.py

clean:
	rm -rf .venv build *.egg-info
