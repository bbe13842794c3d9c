# Everything from a fresh machine with Python 3.11 to 3.13 and make: the environment is made once,
# and again when pyproject.toml changes.
VENV ?= .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin

# The main job: DCGAN on digits (inside scikit-learn, no download) with two workers by Ray Train.
# R1 keeps D from learning the 1,257 pictures by heart; without it G stands still within minutes.
DEMO := train dcgan --data digits --workers 2 --image-size 16 --width 32 --kernel 4 \
	--batch-size 64 --lr-d 0.0005 --lr-g 0.0005 --r1 2 --ema 0.998 \
	--steps 6000 --evaluate-every 1000 --samples 1257

.DEFAULT_GOAL := help
.PHONY: help demo test lint format environment clean

help: ## show this
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(STAMP) ## make the environment and run the main job: DCGAN on digits, two workers
	@$(BIN)/python -m pipelines $(DEMO)

test: $(STAMP) ## make the environment if needed and run the tests, on two cores
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP) ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## let ruff put the code in shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

environment: $(STAMP) ## only make the environment (about 7 GB with CUDA's libraries)

$(STAMP): pyproject.toml
	@set -e; \
	if [ ! -x $(BIN)/python ]; then \
	  found=; \
	  for python in $(PYTHON) python3.12 python3.13 python3.11 python3 python; do \
	    if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	      2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "error: no Python 3.11, 3.12 or 3.13 found: install one, or name it by" \
	      "make PYTHON=/path/to/python" >&2; exit 1; \
	  fi; \
	  echo "making $(VENV) with $$($$found --version)"; \
	  "$$found" -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "error: $$found cannot make an environment: install its venv module" \
	      "(Debian: apt install python3-venv)" >&2; exit 1; }; \
	fi; \
	echo "installing what pyproject.toml names into $(VENV) (torch is large; only once)"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	touch $(STAMP)

clean: ## remove caches, not runs and not the environment
	@rm -rf .pytest_cache .ruff_cache .mypy_cache build *.egg-info
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
