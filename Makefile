PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STEPS ?=

.PHONY: demo test check clean

demo: $(VENV)/.installed
	$(BIN)/export-model vit -o build/vit --force
	$(BIN)/run-model predict build/vit "$$($(BIN)/python tools/sample_image.py)"

test: $(VENV)/.installed .peers/.installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.installed .peers/.installed
	$(BIN)/python tools/check.py $(STEPS)

clean:
	rm -rf $(VENV) .peers build dist

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt -e '.[export,cpu,dev]'
	touch $@

# Beside the environment, for tests only: torchvision as a reference, an older Pillow, and the runtime by itself.
.peers/.installed: pyproject.toml constraints.txt
	rm -rf .peers
	$(PYTHON) -m pip --disable-pip-version-check install --quiet --no-deps --target .peers/torchvision torchvision==0.28.0
	$(PYTHON) -m pip --disable-pip-version-check install --quiet --no-deps --target .peers/pillow12 'pillow==12.*'
	$(PYTHON) -m venv .peers/cpu
	.peers/cpu/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt '.[cpu]'
	touch $@
