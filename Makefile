# The newest usable Python, python3 itself first; name another with PYTHON=...
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
	2>/dev/null && echo "$$python" && break; done)
BIN := .venv/bin
ARGS ?=

.PHONY: help serve test check setup lock clean

help:
	@echo "make serve   install, prepare the models, serve   (ARGS=\"--config configs/serve/fake.yaml\")"
	@echo "make test    install and run every test           (ARGS=\"-k gateway\")"
	@echo "make check   formatting, lint, types, import directions"
	@echo "make setup   install and prepare the models"
	@echo "make lock    resolve requirements/*.lock anew (needs uv)"
	@echo "make clean   remove .venv and caches"

serve: python
	@$(PYTHON) -m scripts.setup
	@exec $(BIN)/corral serve $(ARGS)

test: python
	@$(PYTHON) -m scripts.setup --dev
	@exec $(BIN)/python -m pytest $(ARGS)

check: python
	@$(PYTHON) -m scripts.setup --dev --no-models
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/python -m pytest -q tests/unit/test_imports.py

setup: python
	@$(PYTHON) -m scripts.setup

lock: python
	$(PYTHON) -m scripts.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: python
python:
	@test -n "$(PYTHON)" || { echo "corral needs Python 3.11 or newer and found none;" \
		"install one (Debian, Ubuntu: apt install python3 python3-venv)" \
		"or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
