# What there is to run. Each target sets up .venv when it is missing, or was made from other requirements.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
PIP = $(RUN) -m pip install --disable-pip-version-check --quiet
REQUIREMENTS = sed '/^\[tool/,$$d' pyproject.toml | cat - requirements.txt
STUDY = $(RUN) experiments/seg_gta2city.py --source streets-game --target streets-city streets-night streets-fog

.PHONY: demo test test-slow test-slurm lint docs claims table notebooks wheel setup

demo: setup  ## the segmentation study on the embedded streets: a table, and runs/demo-*/report.html
	$(STUDY) --norm bn ibn-a ibn-b sn --no-augment-colour --max-steps 600 --out runs/demo-$$(date +%Y%m%d-%H%M%S)
	@echo "Next, for a study of your own:  source $(VENV)/bin/activate  and then  python experiments/seg_gta2city.py --help"

test: setup  ## the tests, in a few minutes
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist loadfile

test-slow: setup  ## the tests that take longer, or several processes
	$(RUN) -m pytest -m slow

test-slurm: setup  ## a study as the job of a real SLURM, as root; Debian: slurmctld slurmd slurm-client munge
	$(RUN) tests/slurm/requeued_job.py

lint: setup  ## style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy normshift

wheel: setup  ## a wheel of the library with compiled kernels, in dist/: where it is installed, no compiler is needed
	NORMSHIFT_WHEEL=kernels $(RUN) -m hatchling build -t wheel

docs: setup  ## the documentation as a site, in build/docs/index.html; a warning is an error
	$(RUN) -c "import furo, myst_nb" 2>/dev/null || $(PIP) -e '.[docs]'
	$(RUN) -m sphinx -b html -W --keep-going -n -q -c docs . build/docs
	@echo "open build/docs/index.html"

claims: setup  ## the papers' claims, put to the test: runs/claims/claims.html; CLAIM=ibn-1 for one, SEEDS=5 for more
	$(RUN) experiments/claims.py $(CLAIM) --seeds $(or $(SEEDS),3)

table: setup  ## the streets' tables in docs/results.md: every norm, three seeds, without and with colour augmentation
	$(STUDY) --max-steps 500 --seeds 3 --no-augment-colour --out runs/streets
	$(STUDY) --max-steps 500 --seeds 3 --out runs/streets-augmented

notebooks: setup  ## executes the notebooks in place, on the full runs they were committed with
	NORMSHIFT_SIZE=full $(RUN) notebooks/execute.py

setup:
	@$(REQUIREMENTS) | cmp -s - $(VENV)/made-from || ( \
	  echo "setting up $(VENV): this downloads torch and its like, some gigabytes"; \
	  $(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV); \
	  $(PIP) -r requirements.txt && $(REQUIREMENTS) > $(VENV)/made-from )
