# hpcdl: two commands on a fresh machine.
#
#   make demo    make an environment and train on 2 ranks      (PYTHON=python3.12 picks another Python)
#   make test    lint, and all tests in each world              (WORLD=tf2.15 TESTS=tests/runtime narrows)
#
# Both make what they need under .envs/, once. Nothing needs root; MPI comes as a Python wheel.

PYTHON ?= python3
WORLD ?= tested
TESTS ?= tests
PYTEST_ARGS ?= -q
# A test waits for a third of its time or more, so four keep two cores busy. A file stays together, since its tests share
# what they start.
AT_A_TIME = -n 4 --dist loadfile
IN_DEMO = $(PYTHON) tools/environments.py run tf2.21 --

.DEFAULT_GOAL := help
.PHONY: help demo test test-only test-matrix test-cluster lint format environments list clean

help:
	@echo "make demo          train on 2 ranks on this machine"
	@echo "make test          lint, and all tests in each world  [WORLD=tf2.15 TESTS=tests/runtime PYTEST_ARGS=-x]"
	@echo "make test-matrix   the tests on more Pythons, and on TensorFlow 2.17"
	@echo "make test-cluster  jobs on a private Slurm of two nodes here, in an image; as root, fetches both by apt"
	@echo "make lint          ruff and mypy only;  make format: let ruff rewrite"
	@echo "make environments  only make the environments;  make list: say which there are"
	@echo "make clean         remove the environments; wheels of Horovod stay in ~/.cache/hpcdl"

demo:
	$(IN_DEMO) hpcdl train --np 2 fashion_mnist/fc64 --epochs 1
	$(IN_DEMO) hpcdl train --np 2 docs/examples/three_lines.py

test: lint test-only

test-only:
	$(PYTHON) tools/try_worlds.py --coverage tf2.21 $(WORLD) -- $(AT_A_TIME) $(PYTEST_ARGS) $(TESTS)

test-matrix:
	$(PYTHON) tools/try_worlds.py matrix -- $(AT_A_TIME) $(PYTEST_ARGS) $(TESTS)

# The nodes have no way to the internet: the data is fetched before.
test-cluster:
	$(PYTHON) -m tools.cluster install
	$(IN_DEMO) hpcdl data fetch fashion_mnist
	$(IN_DEMO) python -m tools.cluster image
	$(IN_DEMO) python -m tools.cluster run -- python -m pytest $(PYTEST_ARGS) tests/cluster

lint:
	$(IN_DEMO) ruff check .
	$(IN_DEMO) ruff format --check .
	$(IN_DEMO) mypy hpcdl tools

format:
	$(IN_DEMO) ruff check --fix .
	$(IN_DEMO) ruff format .

environments:
	$(PYTHON) tools/environments.py make $(WORLD)

list:
	$(PYTHON) tools/environments.py list

clean:
	rm -rf .envs build *.egg-info
