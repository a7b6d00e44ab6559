# make book   everything: environment, data, all categories, the studies (chapters 6 to 8), the book
# make test   the tests
# make bench  how fast it is, beside the bars; the values go to benchmarks/results.json
# make lab    JupyterLab on the notebooks
# make student  the notebooks with the solutions cut out, in student/
# make pdf    the book as one PDF, printed by Chromium
# make sync   bring each notebook's .py and .ipynb together, the newer one wins; outputs are removed
# make clean  remove what was made (not the data)

PYTHON ?= python3
DATASET ?= synthetic
CATEGORY ?= all
WEIGHTS ?= auto
JOBS ?=
SEED ?= 0

BIN := .venv/bin

.PHONY: book test bench lab student pdf sync clean help

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

test: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

bench: .venv/installed
	$(BIN)/python -m benchmarks --json benchmarks/results.json

lab: .venv/installed
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

student: .venv/installed
	$(BIN)/python -m texad.book.student

pdf: .venv/installed
	$(BIN)/python -m texad.book.pdf

sync: .venv/installed
	$(BIN)/jupytext --sync notebooks/*.py
	$(BIN)/jupyter nbconvert --clear-output --inplace notebooks/*.ipynb

clean:
	rm -rf _build runs book/run texad.egg-info .pytest_cache .ruff_cache

.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "texad needs Python 3.10 or newer: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python lacks venv; on Debian or Ubuntu: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -e .
	@touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install -e '.[test]'
	@touch $@
