# The doors of the house. Both set up .venv when it is missing or its requirements have changed.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
STREETS = --source streets-game --target streets-city streets-night streets-fog

.PHONY: demo test test-slow setup table

demo: setup  ## the main job on data it makes itself: a table, and runs/demo-*/report.html
	$(RUN) experiments/seg_gta2city.py $(STREETS) --norm bn ibn-a ibn-b sn --no-augment-colour --max-steps 80 --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: setup  ## the tests, in a few minutes
	$(RUN) -m pytest

test-slow: setup  ## the tests that train for minutes
	$(RUN) -m pytest -m slow

table: setup  ## the table in README: every norm, three seeds, without and with colour augmentation
	$(RUN) experiments/seg_gta2city.py $(STREETS) --seeds 3 --no-augment-colour --out runs/streets
	$(RUN) experiments/seg_gta2city.py $(STREETS) --seeds 3 --out runs/streets-augmented

setup: $(VENV)/.complete

$(VENV)/.complete: requirements.txt pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --disable-pip-version-check --quiet --progress-bar off -r requirements.txt
	touch $@
