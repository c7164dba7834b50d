PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ROOMS := converters quantize pipelines devices cloud_sync benchmarks
# Debian packages that some tests need: a real MQTT broker, a browser, an RTSP server.
DEBIAN := mosquitto chromium gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
  gstreamer1.0-plugins-ugly gir1.2-gst-rtsp-server-1.0 python3-gi
# Conversions use one core each and 1 to 2 GB: more workers than two run out of memory before they save time.
WORKERS ?= 2
AS_ROOT := $(filter 0,$(shell id -u))

.PHONY: setup demo test test-slow check format types bench system-deps clean

setup: $(VENV)/.dev

# The demo needs no torch: a quick install. The full world serves it as well.
demo: $(if $(wildcard $(VENV)/.dev),$(VENV)/.dev,$(VENV)/.demo)
	$(BIN)/edgecv demo

test: setup check $(if $(AS_ROOT)$(filter true,$(CI)),system-deps,system-deps-hint)
	$(BIN)/python -m pytest -q -m "not slow" -n $(WORKERS) --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -q -m slow

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

system-deps:
	dpkg -s $(DEBIAN) >/dev/null 2>&1 || (apt-get update -q && apt-get install -y -q --no-install-recommends $(DEBIAN))

.PHONY: system-deps-hint
system-deps-hint:
	@dpkg -s $(DEBIAN) >/dev/null 2>&1 || echo "Tests that need a broker, a browser or a camera will skip. To run them: sudo make system-deps"

clean:
	rm -rf $(VENV) .cache build dist *.egg-info demo-output

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade -c constraints.txt pip

$(VENV)/.demo: pyproject.toml setup.py constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install -q -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml setup.py constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install -q -c constraints.txt torch==2.13.0 torchvision==0.28.0 -e '.[dev]'
	touch $@
