# The two commands of the README are `make demo` and `make test`; the rest is what CI runs beside them.
PYTHON ?= python3
DATA ?=
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: install demo test test-docs test-torch test-slow test-optimized lint smoke docs benchmarks constraints clean

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

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# They compile much and compute little.
smoke: export XLA_FLAGS = --xla_backend_optimization_level=0
smoke: $(INSTALLED)  ## Every experiment and benchmark, a few steps each.
	$(BIN)/python experiments/sinusoid.py --iterations 200 --test-tasks 20 --folder runs/smoke/sinusoid
	$(BIN)/python experiments/omniglot.py --benchmark glyphs --learners maml protonet simpleshot --iterations 2 --test-tasks 2 --ways 3 --shots 1 \
	  --folder runs/smoke/omniglot
	$(BIN)/python experiments/learned_optimizer.py --iterations 2 --num-runs 2 --steps 20 --problems 2 --folder runs/smoke/learned_optimizer
	$(BIN)/python experiments/continual.py --effort 0.002 --characters 40 --classes 5 --streams 5 --hidden 4 --folder runs/smoke/continual
	$(BIN)/python experiments/hypergradient.py --steps 2 --seeds 0 --drawings 20 --large 10 --rounds 1 --folder runs/smoke/hypergradient
	$(BIN)/python experiments/pretrain.py --iterations 2 --classes 10 --test-tasks 2 --shots 1 --folder runs/smoke/pretrain
	$(BIN)/python experiments/one_by_one.py --learners protonet --iterations 2 --test-tasks 2 --folder runs/smoke/one_by_one
	$(BIN)/python experiments/maml_particles2d.py --algorithms promp --seeds 0 --iterations 2 --num-tasks 2 --episodes 2 --test-tasks 2 \
	  --folder runs/smoke/maml_particles2d
	$(BIN)/python experiments/rl2_bandits.py --iterations 2 --num-tasks 4 --pulls 10 --test-tasks 10 --folder runs/smoke/rl2_bandits
	$(BIN)/python experiments/pearl_particles2d.py --iterations 2 --num-tasks 2 --updates 2 --test-tasks 2 --seeds 0 \
	  --folder runs/smoke/pearl_particles2d
	$(BIN)/python experiments/benchmarks/heads.py --shots 1 --features 16 --num-tasks 2 --rounds 1 --output runs/smoke/heads.json
	$(BIN)/python experiments/benchmarks/meta_gradients.py --conv-steps 2 --hidden 4 --transformer-steps 2 --layers 2 --width 8 \
	  --length 8 --sequences 1 --samples 2 --rounds 1 --only first_order --output runs/smoke/meta_gradients.json
	$(BIN)/python experiments/benchmarks/suite.py --num-tasks 2 --hidden 4 --size 64 --rounds 1 --updates 2 \
	  --only sinusoid "MAML, 1 step, first" "a task" --output runs/smoke/suite.json
	$(BIN)/python experiments/benchmarks/scaling.py --devices 1 2 --num-tasks 2 --steps 1 --hidden 64 --base-tasks 2 --rounds 1 \
	  --output runs/smoke/scaling.json
	$(BIN)/python experiments/benchmarks/rl.py --num-tasks 2 --episodes 2 --horizon 5 --rounds 1 --output runs/smoke/rl.json
	$(BIN)/python experiments/benchmarks/sampling.py --rounds 2 --output runs/smoke/sampling.json
	$(BIN)/python experiments/benchmarks/sweep.py --runs 2 --updates 4 2 --rounds 1 --only sinusoid --output runs/smoke/sweep.json
	$(BIN)/python experiments/benchmarks/gpu.py --small --limit 60 --output runs/smoke/gpu.jsonl

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
