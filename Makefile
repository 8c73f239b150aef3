# `make demo` and `make test` install everything they need from a bare clone. They require python3
# (3.10 or newer) with venv and a package index; `make test` also requires a C++ compiler.
#
# Every finished step of the installation leaves a stamp in .venv/.stamps. The stamp is the last
# thing a step writes, so running make again completes an interrupted installation.

PYTHON3 ?= python3
VENV    ?= .venv
PYTHON  := $(VENV)/bin/python
STAMPS  := $(VENV)/.stamps
PYTEST_ARGS ?=

# One process per core. All tests of a file run in the same process, so they share its fixtures. The
# files start in the order of tests/conftest.py, the longest first.
PYTEST := $(PYTHON) -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
	--durations 20 --durations-min 5

# For each task the baseline, then its NC variant.
DEMO_ALL := \
	classification/resnet18_gn_1xb2 classification/resnet18_nc_1xb2 \
	mask_rcnn/mask-rcnn_r18_fpn_gn-all_1xb2 mask_rcnn/mask-rcnn_r18_fpn_nc-all_1xb2 \
	deeplab/deeplabv3plus_r18-d8_gn_1xb2 deeplab/deeplabv3plus_r18-d8_nc_1xb2 \
	cyclegan/cyclegan_resnet2-w16_in_1xb8-10e cyclegan/cyclegan_resnet2-w16_nc_1xb8-10e

# --no-compile saves time: Python compiles a module when it is first imported. For that Python must
# be allowed to write byte code.
INSTALL := $(PYTHON) -m pip install --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo demo-all test test-slow test-torch bench docs lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMPS)/demo  ## train GroupNorm and NC on handwritten digits, write work_dirs/demo/report.html (minutes)
	$(PYTHON) tools/make_digits.py data/digits
	$(PYTHON) tools/compare.py configs/classification/resnet18_gn_1xb2_digits.py configs/classification/resnet18_nc_1xb2_digits.py --seeds 1 --out work_dirs/demo

demo-all: setup  ## the same for all four tasks, write work_dirs/demo-all/report.html (an hour)
	$(PYTHON) tools/make_digits.py data/digits
	$(PYTHON) tools/compare.py $(foreach config,$(DEMO_ALL),configs/$(config)_digits.py) --seeds 1 --out work_dirs/demo-all --title 'Four tasks on handwritten digits'

test: setup  ## run the tests (6 minutes; the first run also compiles mmcv's operators, 15 minutes)
	$(PYTEST) -m 'not slow' $(PYTEST_ARGS)

test-slow: setup $(STAMPS)/docs  ## run the tests that `make test` leaves out
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-torch:  ## test ops and layers with another version of torch: make test-torch TORCH=2.6.0
	$(PYTHON3) tools/test_torch.py $(TORCH) $(PYTEST_ARGS)

bench: $(STAMPS)/demo  ## time NC and convolution + GroupNorm, on some layers and a small ResNet (minutes)
	$(PYTHON) benchmarks/run.py short

docs: $(STAMPS)/demo $(STAMPS)/docs  ## build the documentation as a site in docs/_build
	$(PYTHON) -m sphinx -W --keep-going -q docs docs/_build
	@echo docs/_build/index.html

setup: $(STAMPS)/full $(STAMPS)/dev  ## install everything for development into .venv

lint: $(STAMPS)/dev  ## check style with ruff
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format: $(STAMPS)/dev  ## repair style with ruff
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

clean:  ## remove .venv, builds and caches; keep data/, work_dirs/ and built wheels
	rm -rf $(VENV) build dist docs/_build *.egg-info .pytest_cache .ruff_cache nc_plugins/ops/_C*.so

$(STAMPS)/venv: requirements/build.txt
	@$(PYTHON3) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 10) else f"nc_plugins needs Python 3.10 or newer, but $(PYTHON3) is {v}: run make PYTHON3=/path/to/python")'
	$(PYTHON3) -m venv $(VENV)
	$(INSTALL) -r requirements/build.txt
	@mkdir -p $(STAMPS) && touch $@

# The demo does not need mmcv's operators, whose compilation takes minutes. The editable install
# compiles the "cpu" backend in place in half a minute. Without a C++ compiler the demo still runs,
# with the slower "aten" backend.
$(STAMPS)/demo: $(STAMPS)/venv requirements/demo.txt setup.py tools/install_mmcv.py $(wildcard nc_plugins/csrc/*)
	$(INSTALL) -r requirements/demo.txt
	$(PYTHON) tools/install_mmcv.py --no-build
	$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(STAMPS)/full: $(STAMPS)/demo requirements/test.txt requirements/test-nodeps.txt
	$(INSTALL) -r requirements/test.txt
	$(INSTALL) --no-deps -r requirements/test-nodeps.txt
	$(PYTHON) tools/install_mmcv.py
	@touch $@

$(STAMPS)/docs: $(STAMPS)/venv requirements/docs.txt
	$(INSTALL) -r requirements/docs.txt
	@touch $@

$(STAMPS)/dev: $(STAMPS)/venv requirements/dev.txt
	$(INSTALL) -r requirements/dev.txt
	@touch $@
