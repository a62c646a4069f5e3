# The two commands of the README are `make demo` and `make test`; the rest is what CI runs beside them.
PYTHON ?= python3
DATA ?=
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: install demo test test-docs test-torch test-slow test-optimized test-full lint smoke docs benchmarks constraints clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "jaxmeta needs Python 3.11 or newer, found $$($(PYTHON) --version); try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,docs]"
	@touch $@

demo: $(INSTALLED)  ## Meta-train MAML for about three minutes at most; DATA=<folder with the Omniglot zips> for real data.
	$(BIN)/jaxmeta train --minutes 3 $(if $(DATA),--benchmark omniglot --root "$(DATA)" --folder runs/demo-omniglot,--folder runs/demo)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --dist worksteal

test-docs: $(INSTALLED)  ## The examples in docstrings and on the pages.
	$(BIN)/python -m pytest -n auto -m docs

test-torch: $(INSTALLED)  ## The checks that need PyTorch or TensorFlow Datasets, which it installs.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[torch,tfds]"
	$(BIN)/python -m pytest -m torch

test-slow: $(INSTALLED)  ## The longer checks.
	$(BIN)/python -m pytest -n auto -m slow

test-optimized: $(INSTALLED)  ## A sample of the tests, compiled at XLA's default optimization as users compile.
	JAXMETA_XLA_DEFAULT=1 $(BIN)/python -m pytest -n auto tests/test_step.py tests/test_loop.py tests/test_optim_formulas.py tests/test_dice.py

test-full: $(INSTALLED)  ## 100,000 hostile files, 100 kills and ten crowds, whose counts `make docs` puts into the pages; an hour.
	$(BIN)/python tests/hostile_files.py 10000 experiments/results/hostile_files.md
	$(BIN)/python tests/kill_many.py --table experiments/results/kills.md

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

smoke: $(INSTALLED)  ## Every experiment and benchmark, a few steps each.
	$(BIN)/python -m pytest -n auto -m smoke

docs: $(INSTALLED)  ## The documentation in site/, with its generated tables made anew.
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet -f docs/mkdocs.yml

benchmarks: $(INSTALLED)
	$(BIN)/python experiments/benchmarks/meta_gradients.py
	OPENBLAS_NUM_THREADS=1 $(BIN)/python experiments/benchmarks/heads.py
	$(BIN)/python experiments/benchmarks/suite.py
	$(BIN)/python experiments/benchmarks/scaling.py
	$(BIN)/python experiments/benchmarks/sampling.py

constraints: $(INSTALLED)  ## Write down what is installed (after `make test-torch`, so that all of it is).
	{ echo '# Exact versions that `make` installs; made by `make constraints`.'; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -v '^torch'; } > constraints.txt

clean:
	rm -rf .venv .jax_cache .pytest_cache .ruff_cache build dist site *.egg-info
