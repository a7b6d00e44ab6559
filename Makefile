# make book   everything: environment, data, all categories, the studies (chapters 6 to 9), the book
# make test   everything that can be checked: make check, then the slow tests
# make check  in two minutes: lint, format, types, who may import whom, and the fast tests
# make bench  how fast it is, beside the bars; the values go to benchmarks/results.json
# make lab    JupyterLab on the notebooks
# make student  the notebooks with the solutions cut out, in student/
# make pdf    the book as one PDF, printed by Chromium
# make sync   bring each notebook's .py and .ipynb together, the newer one wins; outputs are removed
# make lock   write requirements.lock anew: the exact environment, with hashes; UPGRADE=--upgrade for the newest versions
# make clean  remove what was made (not the data)

PYTHON ?= python3
DATASET ?= synthetic
CATEGORY ?= all
WEIGHTS ?= auto
JOBS ?=
SEED ?= 0
LOCK ?= requirements.lock
UPGRADE ?=

BIN := .venv/bin

.PHONY: book check test bench lab student pdf sync lock clean help

help:
	@sed -n 's/^# make/make/p' Makefile
	@echo "options of make book: DATASET=$(DATASET) CATEGORY=$(CATEGORY) WEIGHTS=$(WEIGHTS) JOBS=$(JOBS) SEED=$(SEED)"

# A category or a study that failed (status 1) must not keep the others out of the book; make still ends with an error.
book: .venv/installed
	@status=0; \
	$(BIN)/python -m texad run --dataset "$(DATASET)" --category "$(CATEGORY)" --weights "$(WEIGHTS)" --seed "$(SEED)" --studies $(if $(JOBS),--jobs "$(JOBS)") || status=$$?; \
	test $$status -le 1 || exit $$status; \
	rm -rf _build/html; \
	$(BIN)/jupyter-book build . --all --warningiserror --nitpick --keep-going --quiet || exit $$?; \
	echo; echo "The book: $(CURDIR)/_build/html/index.html"; \
	exit $$status

PYTEST := OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile
SLOW := slow or browser or crash

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -m "not ($(SLOW))"

test: check
	$(PYTEST) -m "$(SLOW)"

bench: .venv/installed
	$(BIN)/python -m benchmarks --json benchmarks/results.json

lab: .venv/installed
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

student: .venv/installed
	$(BIN)/python -m texad.teaching.student

pdf: .venv/installed
	$(BIN)/python -m texad.site.pdf

sync: .venv/installed
	$(BIN)/jupytext --sync notebooks/*.py
	$(BIN)/jupyter nbconvert --clear-output --inplace notebooks/*.ipynb

clean:
	rm -rf _build runs book/run texad.egg-info dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache

# The versions of requirements.lock and no others, each checked by its hash. A torch built for processors alone, if one is there already, stays,
# and then the lock's packages of CUDA are left out. LOCK= (empty) takes what pyproject.toml allows instead.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "texad needs Python 3.10 or newer: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python lacks venv; on Debian or Ubuntu: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
ifeq ($(LOCK),)
	$(BIN)/pip install -e '.[test]'
else
	if $(BIN)/pip list --format=freeze | grep -q '^torch==.*+cpu'; then \
		awk '/^[A-Za-z]/ { kept = !/^(nvidia|cuda|triton)/ } kept || /^#/' $(LOCK); \
	else cat $(LOCK); fi > .venv/requirements.lock
	$(BIN)/pip install --require-hashes -r .venv/requirements.lock
	$(BIN)/pip install --no-deps --no-build-isolation --no-index -e .
endif
	@touch $@

# uv knows how to write one lock for all systems and Pythons; it has a place of its own, out of the environment that it writes down.
lock:
	$(PYTHON) -m venv _build/uv
	_build/uv/bin/pip install 'uv>=0.9,<1'
	sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml | \
	_build/uv/bin/uv pip compile --quiet --universal --python-version 3.10 --no-python-downloads --generate-hashes --no-annotate --no-emit-index-url \
		--custom-compile-command "make lock" $(UPGRADE) --all-extras -o requirements.lock pyproject.toml -
