# Two commands on a fresh machine (Linux, Python 3.11 to 3.13): `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION = 1
export RAY_USAGE_STATS_ENABLED = 0
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test docs distributions mutants fuzz soak faults clean

demo: $(VENV)/installed
	$(VENV)/bin/feddp simulate --with-non-private

test: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest -n auto --dist loadfile

# The documentation as a site, in site/; a warning is an error.
docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet --strict

# The source distribution and the wheel, in dist/, as they would be published.
distributions: $(VENV)/installed-dev
	rm -rf dist
	$(VENV)/bin/python -m build --no-isolation --outdir dist .
	$(VENV)/bin/python -m twine check --strict dist/*

# Every seeded bug of the privacy core, each killed by its test: about 5 minutes on two cores.
mutants: $(VENV)/installed-dev
	PYTHONPATH=tests $(VENV)/bin/python -m mutants

# Random inputs for every parser: make fuzz N=1000000.
N ?= 20000
fuzz: $(VENV)/installed-dev
	PYTHONPATH=tests $(VENV)/bin/python -m fuzz --inputs $(N)

# Hours: all golden tables, long statistics and properties, 10,000 sequences of ledger calls, kills at every step under
# 100 seeds, every byte of a ledger flipped.
soak: $(VENV)/installed-dev
	$(VENV)/bin/python -m pytest -m slow tests/golden tests/properties tests/common/privacy tests/server

# Real faults against real processes: about half an hour for a hundred, of every kind, on two cores.
# Fewer than there are kinds are a handful of the fast ones: make faults FAULTS=6
FAULTS ?= 100
faults: $(VENV)/installed-dev
	PYTHONPATH=. $(VENV)/bin/python tests/faults/campaign.py --faults $(FAULTS) --output-dir runs/faults

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs site dist build
