# The pruning book. `make book` and `make test` are all that most people need; `make help` lists the rest.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
PY := .venv/bin/python
READY := .venv/.ready
# How long a run the notebooks make: smoke, quick, standard or paper (notebooks/*/profiles.yml)
PROFILE ?= quick
# One core each, two side by side: numbers are then the same on every machine of one kind
JOBS ?= 2

# Tools that the target runs are looked up in .venv first (jupyter kernels start as `python`).
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONNOUSERSITE := 1
# Empty = bytecode may be written: dozens of processes import the same modules.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help book notebooks site test test-all page lab sweep sweep-status bench check format strip site-check lock clean

help:
	@echo 'make book        run every notebook (PROFILE=quick) and build the site: book/_build/html/index.html'
	@echo 'make test        fast tests (one folder a room, golden values, every notebook at profile smoke)'
	@echo 'make test-all    the same with the slow ones'
	@echo 'make page NB=0_foundations/1_sparsity   run one notebook and build its page'
	@echo 'make lab         open the notebooks in JupyterLab'
	@echo 'make sweep       the long runs (PROFILE=standard or paper), resumable; SCHEDULER=address for many machines'
	@echo 'make sweep-status   how far they are'
	@echo 'make bench       speed and memory, as ratios, compared with the stored ones (ROWS="--only SNIP")'
	@echo 'make check       lint, format, types, floors of the package, notebooks stored without outputs'
	@echo 'make format      put code and notebooks into the form that `make check` wants'
	@echo 'make site-check  the built site in a headless browser'
	@echo 'make lock        pin the newest versions that pyproject.toml allows'
	@echo 'make clean       remove what was built (not .venv, not data/cache)'

# Installed once; again only when what is to be installed changed.
$(READY): pyproject.toml requirements.lock .ci/install
	.ci/install
	@touch $@

book: notebooks
	$(MAKE) --no-print-directory site

notebooks: $(READY)
	$(PY) -m pruning_core notebooks --profile $(PROFILE) --jobs $(JOBS)

site: $(READY)
	$(PY) book/_ext/prepare.py
	jupyter-book build book -W -n --keep-going
	@test -s book/_build/html/index.html
	@echo 'The book is at book/_build/html/index.html'

page: $(READY)
	@test -n '$(NB)' || { echo 'Which notebook? For example: make page NB=0_foundations/1_sparsity' >&2; exit 2; }
	$(PY) -m pruning_core page '$(NB)' --profile $(PROFILE)

test: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist worksteal -q

test-all: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist worksteal -q -m 'not site'

site-check: $(READY)
	@test -s book/_build/html/index.html || { echo 'There is no site yet: run `make book` first.' >&2; exit 1; }
	.ci/browser
	$(PY) -m pytest -q -n 2 -m site tests/site

check: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	lint-imports
	$(PY) -m pruning_core notebooks --check-stripped

format: $(READY)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(MAKE) --no-print-directory strip

strip: $(READY)
	nbstripout --extra-keys 'metadata.papermill cell.metadata.papermill metadata.widgets' notebooks/*/*.ipynb

lab: $(READY)
	$(PY) -m jupyterlab notebooks

sweep: $(READY)
	$(PY) -m pruning_core sweep --profile $(PROFILE) --jobs $(JOBS) $(if $(SCHEDULER),--scheduler '$(SCHEDULER)')

sweep-status: $(READY)
	$(PY) -m pruning_core sweep-status --profile $(PROFILE)

bench: $(READY)
	OMP_NUM_THREADS=1 $(PY) tests/benchmarks/run.py $(ROWS)

lock: $(READY)
	uv pip compile --upgrade --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		pyproject.toml --extra attacks --extra book --extra sweep --extra test -o requirements.lock

clean:
	rm -rf book/_build book/_failed book/notebooks book/api book/catalogue book/catalogue.md book/front book/scoreboard.md book/scoreboard.svg book/costs.md tests/artefacts
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
