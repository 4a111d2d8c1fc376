# Every target sets up what it needs by itself: a virtual environment in .venv, once.
PYTHON ?= python3
BIN := .venv/bin
OTHERS := .venv/integrations/bin
NEWEST := .venv/newest/bin
export OMP_WAIT_POLICY ?= PASSIVE
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-slow soak lint docs resolve newest format bench gpu integrations evaluate picture clean

demo: .venv/ready  ## two and four workers solve a problem, and one alone for comparison
	$(BIN)/hogwild solve - --workers 2 --compare < examples/tasks.txt
	$(BIN)/hogwild solve - --workers 4 --compare < examples/tasks.txt

test: .venv/ready  ## all tests but the slow ones, and which lines they have not run
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --cov=hogwild_agents

test-slow: .venv/ready  ## tests that take minutes
	$(BIN)/pytest -m slow

soak: .venv/ready  ## ten minutes of sessions submitted, cancelled, broken and closed at random
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak

lint: .venv/ready  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready  ## the documentation in site/; a dead link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

resolve: .venv/ready  ## whether constraints.txt can be installed from PyPI alone, on each Python
	@for python in 3.11 3.12 3.13; do \
		env -u PIP_FIND_LINKS -u UV_FIND_LINKS $(BIN)/uv pip compile --no-config --quiet \
			--constraints constraints.txt --extra dev --python-version $$python pyproject.toml >/dev/null \
		&& echo "constraints.txt resolves for Python $$python" || exit 1; \
	done

newest: .venv/newest/ready  ## all tests on the newest releases of everything we depend on
	OMP_NUM_THREADS=1 $(NEWEST)/pytest -n auto --maxprocesses 4 --dist loadfile

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/ready  ## the engine beside plain transformers on this machine
	$(BIN)/hogwild bench --shape 5m --workers 1,2,4 --contexts 256,2048,8192
	$(BIN)/hogwild bench --shape qwen3-0.6b --workers 1,2 --contexts 256,8192 --passes 5

gpu: .venv/ready  ## on a CUDA card: checks the engine and measures it against its bars, 8 minutes
	$(BIN)/python -m tests.gpu

integrations: .venv/integrations/ready  ## the packages for Inspect and lm_eval, in an environment of their own
	OMP_NUM_THREADS=1 $(OTHERS)/pytest integrations/inspect_ai/tests
	OMP_NUM_THREADS=1 $(OTHERS)/pytest integrations/lm_eval/tests
	cd integrations/inspect_ai && ../../$(OTHERS)/mypy
	cd integrations/lm_eval && ../../$(OTHERS)/mypy

evaluate: .venv/ready  ## the pocket model on problems that no training has seen
	$(BIN)/python -m hogwild_agents.pocket.evaluate

picture: .venv/ready  ## records docs/demo.svg anew
	$(BIN)/python docs/picture.py

clean:
	rm -rf .venv dist site .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

.venv/newest/ready: .venv/ready pyproject.toml
	$(PYTHON) -m venv .venv/newest
	$(NEWEST)/pip install --quiet --disable-pip-version-check --upgrade -e '.[dev]'
	touch $@

.venv/integrations/ready: .venv/ready constraints.txt integrations/constraints.txt $(wildcard integrations/*/pyproject.toml)
	$(PYTHON) -m venv .venv/integrations
	$(OTHERS)/pip install --quiet --disable-pip-version-check -c constraints.txt -c integrations/constraints.txt \
		-e . -e 'integrations/inspect_ai[dev]' -e 'integrations/lm_eval[dev]'
	touch $@
