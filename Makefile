PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROOMS := converters quantize pipelines devices cloud_sync benchmarks
# Debian packages that some tests need: a real MQTT broker, a browser, an RTSP server, a tracer of system calls, a C compiler.
DEBIAN := mosquitto chromium gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
  gstreamer1.0-plugins-ugly gir1.2-gst-rtsp-server-1.0 python3-gi strace gcc libc6-dev
# Conversions use one core each and 1 to 2 GB: more workers than two run out of memory before they save time.
WORKERS ?= 2
# Modules are not compiled while they are installed: that took a quarter of the time, and most are never imported.
INSTALL := $(BIN)/python -m pip install -q --no-compile
# The locks say every file that may be installed, by its hash (.ci/lock.py).
LOCKED := $(INSTALL) --require-hashes
OURS := $(INSTALL) --no-deps --no-build-isolation -e .

.PHONY: setup demo test test-slow test-arm64 test-pythons test-home-assistant check format types bench bench-peers check-tensorrt dist lock audit system-deps clean

setup: $(VENV)/.dev

# The demo needs no torch: a quick install. The full world serves it as well.
demo: $(if $(wildcard $(VENV)/.dev),$(VENV)/.dev,$(VENV)/.demo)
	$(BIN)/edgecv demo

test: setup check $(if $(filter true,$(CI)),system-deps,system-deps-hint)
	$(BIN)/python -m pytest -q -m "not slow" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-slow: setup
	$(BIN)/python -m pytest -q -m slow

# Home Assistant itself, in an environment of its own, reads what a device announces. It needs Python 3.13, and installs 70 packages.
PYTHON313 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python) python3.13)
HOME_ASSISTANT := .cache/homeassistant
test-home-assistant: setup $(HOME_ASSISTANT)/.done
	$(BIN)/python -m pytest -q -m slow tests/integration/test_home_assistant_slow.py

$(HOME_ASSISTANT)/.done:
	$(PYTHON313) -m venv $(HOME_ASSISTANT)
	$(HOME_ASSISTANT)/bin/pip install -q homeassistant==2025.4.4 paho-mqtt==2.2.0
	touch $@

# The built wheel on an emulated arm64 Debian 12, from nothing, as root (.ci/arm64.py). STEPS="verify clip" does only these.
test-arm64: dist
	nice $(BIN)/python .ci/arm64.py $(STEPS)

# The built wheel in each Python that is supported and on this machine (.ci/pythons.py). PYTHONS="3.10 3.13" takes only these.
test-pythons: dist
	nice $(BIN)/python .ci/pythons.py $(PYTHONS)

check: setup types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# mypy sees all of the package only where the rooms stand inside it (docs/adr/0001): in a tree of links.
types: setup
	rm -rf .cache/types && mkdir -p .cache/types/edgecv
	ln -s $(CURDIR)/edgecv/* $(addprefix $(CURDIR)/,$(ROOMS)) .cache/types/edgecv/
	cd .cache/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p edgecv

bench: setup
	$(BIN)/python -m edgecv.benchmarks

# EdgeCV beside other tools. Their environments are made under .cache/peers, and the tables in docs/benchmarks.md are written anew.
bench-peers: setup
	$(BIN)/python -m edgecv.benchmarks.lab peers --doc docs/benchmarks.md --out benchmarks/lab/records/peers.json

# The source archive and the wheel. The wheel is made from the archive: what the archive lacks, the tests of the wheel miss.
dist: setup
	rm -rf build dist
	$(BIN)/python -m build --no-isolation

# Write .ci/*.lock anew, after a change of pyproject.toml or constraints.txt.
lock: setup
	$(PYTHON) -m venv .cache/lock
	.cache/lock/bin/pip install -q uv==0.13.9
	$(BIN)/python .ci/lock.py $(CURDIR)/.cache/lock/bin/uv

# Known vulnerabilities of the pinned packages. It fails where the index serves no advisories for one, too.
audit:
	$(PYTHON) -m venv .cache/audit
	.cache/audit/bin/pip install -q pip-audit==2.10.1
	.cache/audit/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt

# INT8 against fp16 on TensorRT, for whoever has an NVIDIA card: it installs into .cache/tensorrt, gigabytes, and says so first.
# Without a card it says that, and what it would install; nothing is set up for it before.
check-tensorrt:
	@[ ! -e /proc/driver/nvidia/version ] || $(MAKE) setup
	@$(PYTHON) .ci/check_tensorrt.py $(if $(MODEL),--model $(MODEL)) $(if $(IMAGES),--images $(IMAGES))

system-deps:
	dpkg -s $(DEBIAN) >/dev/null 2>&1 || (apt-get update -q && apt-get install -y -q --no-install-recommends $(DEBIAN))

.PHONY: system-deps-hint
system-deps-hint:
	@dpkg -s $(DEBIAN) >/dev/null 2>&1 || echo "Tests that need a broker, a browser or a camera will skip. To run them: sudo make system-deps"

clean:
	rm -rf $(VENV) .cache build dist *.egg-info demo-output

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)
	$(LOCKED) -r .ci/pip.lock

$(VENV)/.demo: pyproject.toml setup.py .ci/demo.lock | $(VENV)/bin/pip
	$(LOCKED) -r .ci/demo.lock
	$(OURS)
	touch $@

# torch's CPU build is what the project is developed with. Where pip does not know it, the build of the package index is taken.
WORLD := -r .ci/demo.lock -r .ci/dev.lock
$(VENV)/.dev: pyproject.toml setup.py $(wildcard .ci/*.lock) | $(VENV)/bin/pip
	$(LOCKED) $(WORLD) -r .ci/torch-cpu.lock || (echo "pip does not know torch's CPU build; the larger one is installed." && \
	  $(LOCKED) $(WORLD) -r .ci/torch-cuda.lock)
	$(OURS)
	touch $@
