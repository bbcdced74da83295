PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STEPS ?=
# By files, so that each worker makes the bundles of a file once; the long ones, which come first, before the short.
WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow check docs clean

demo: $(VENV)/.installed
	$(BIN)/export-model lenet5 --weights digits -o build/digits --force
	$(BIN)/python tools/sample_digit.py build/digit.png
	$(BIN)/run-model predict build/digits build/digit.png
	$(BIN)/export-model vit -o build/vit --force
	$(BIN)/run-model predict build/vit "$$($(BIN)/python tools/sample_image.py)"

test: $(VENV)/.installed .peers/.runtime
	$(BIN)/python -m pytest $(WORKERS) -m 'not slow' $(PYTEST_ARGS)

test-slow: $(VENV)/.installed .peers/.runtime
	$(BIN)/python -m pytest $(WORKERS) -m slow $(PYTEST_ARGS)

check: $(VENV)/.installed .peers/.runtime
	$(BIN)/python tools/check.py $(STEPS)

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet -d build/site

clean:
	rm -rf $(VENV) .peers build dist

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt -e '.[export,cpu,hub,dev]'
	touch $@

# Beside the environment, for tests only: writers of checkpoints as references (they find torch and the rest in the
# environment: --no-deps brings no second torch), an older Pillow, and the runtime by itself.
PEER := $(PYTHON) -m pip --disable-pip-version-check install --quiet --no-deps --target
.peers/.installed: pyproject.toml constraints.txt Makefile
	rm -rf $(addprefix .peers/,torchvision timm transformers lightning pillow12 opencv4 opencv5 cpu openvino-builtin)
	$(PEER) .peers/torchvision torchvision==0.28.0
	$(PEER) .peers/timm timm==1.0.31
	$(PEER) .peers/transformers transformers==5.24.0 tokenizers==0.23.3 regex==2026.11.19
	$(PEER) .peers/lightning pytorch-lightning==2.6.6 torchmetrics==1.9.0 lightning-utilities==0.15.3
	$(PEER) .peers/pillow12 'pillow==12.*'
	$(PEER) .peers/opencv4 opencv-python-headless==4.11.0.86
	$(PEER) .peers/opencv5 opencv-python-headless==5.0.0.93
	$(PYTHON) -m venv .peers/cpu
	.peers/cpu/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt '.[cpu]'
	$(PYTHON) -m venv .peers/openvino-builtin
	.peers/openvino-builtin/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt \
		'.[openvino-builtin]'
	touch $@

# The runtime in environments of its own, as it is now.
.peers/.runtime: .peers/.installed $(shell find runtime models export -type f -not -name '*.pyc')
	for name in cpu openvino-builtin; do \
		.peers/$$name/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --force-reinstall . || exit 1; done
	touch $@

# Other places where bundles run: emulated ARM64, C, Node, browsers. `.ci/run` makes them; tests without them are skipped.
.peers/edge/.installed: Makefile constraints.txt $(wildcard tools/edge/*) $(VENV)/.installed
	rm -rf .peers/arm64 .peers/capi .peers/npm
	PIP="$(PYTHON) -m pip" sh tools/edge/make-arm64-python.sh $(abspath .peers/arm64) onnxruntime==1.32.0
	sh tools/edge/get-headers.sh $(abspath .peers/capi)
	for name in libonnxruntime.so libonnxruntime.so.1; do \
		ln -sf $(abspath $(VENV))/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.1.* .peers/capi/lib/$$name; done
	mkdir -p .peers/npm .peers/edge
	npm install --silent --prefix .peers/npm --ignore-scripts onnxruntime-node@1.30.0 onnxruntime-web@1.30.0 \
		axe-core@4.14.1
	touch $@

# What tools/bench_peers.py compares with; tests do without it.
.peers/openvino/.installed: Makefile
	rm -rf .peers/openvino
	$(PYTHON) -m venv .peers/openvino
	.peers/openvino/bin/python -m pip --disable-pip-version-check install --quiet numpy Pillow \
		onnxruntime==1.32.0 openvino==2026.4.1 onnxruntime-ep-openvino==1.8.1 nncf==3.4.0
	touch $@
