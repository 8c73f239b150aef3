# Two commands do all set-up from a bare clone: `make demo` and `make test`.
# They need python3 (3.10 or newer) with venv, a C++ compiler (make test) and a package index.
#
# Each stamp in .venv/.stamps says that one step finished. It is touched last, so a run that was
# interrupted is repaired by running make again.

PYTHON3 ?= python3
VENV    ?= .venv
PYTHON  := $(VENV)/bin/python
STAMPS  := $(VENV)/.stamps
PYTEST_ARGS ?=

# The baseline of each task, then its NC twin.
DEMO_ALL := \
	classification/resnet18_gn_1xb2 classification/resnet18_nc_1xb2 \
	mask_rcnn/mask-rcnn_r18_fpn_gn-all_1xb2 mask_rcnn/mask-rcnn_r18_fpn_nc-all_1xb2 \
	deeplab/deeplabv3plus_r18-d8_gn_1xb2 deeplab/deeplabv3plus_r18-d8_nc_1xb2 \
	cyclegan/cyclegan_resnet2-w16_in_1xb8-10e cyclegan/cyclegan_resnet2-w16_nc_1xb8-10e

# --no-compile: byte code is written at first import instead, only for what is imported, so Python
# must be allowed to write it.
INSTALL := $(PYTHON) -m pip install --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo demo-all test bench lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMPS)/demo  ## train GroupNorm and NC on real digits, write work_dirs/demo/report.md (minutes)
	$(PYTHON) tools/make_digits.py data/digits
	$(PYTHON) tools/compare.py configs/classification/resnet18_gn_1xb2_digits.py configs/classification/resnet18_nc_1xb2_digits.py --seeds 1 --out work_dirs/demo

demo-all: setup  ## the same for detection, segmentation and translation: work_dirs/demo-all/report.md (an hour)
	$(PYTHON) tools/make_digits.py data/digits
	$(PYTHON) tools/compare.py $(foreach config,$(DEMO_ALL),configs/$(config)_digits.py) --seeds 1 --out work_dirs/demo-all --title 'Four tasks on handwritten digits'

test: setup  ## run the tests (the first run compiles mmcv's operators, about 15 minutes once)
	$(PYTHON) -m pytest $(PYTEST_ARGS)

bench: $(STAMPS)/demo  ## time NC beside what it replaces, on a few layers and a small ResNet (minutes)
	$(PYTHON) benchmarks/run.py short

setup: $(STAMPS)/full $(STAMPS)/dev  ## install everything for development into .venv

lint: $(STAMPS)/dev  ## check style with ruff
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format: $(STAMPS)/dev  ## let ruff repair style
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

clean:  ## remove .venv and what builds and tools left; data/, work_dirs/ and built wheels stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache nc_plugins/ops/_C*.so

$(STAMPS)/venv: requirements/build.txt
	@$(PYTHON3) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 10) else f"nc_plugins needs Python 3.10 or newer, but $(PYTHON3) is {v}: run make PYTHON3=/path/to/python")'
	$(PYTHON3) -m venv $(VENV)
	$(INSTALL) -r requirements/build.txt
	@mkdir -p $(STAMPS) && touch $@

# mmcv's operators are not needed here, and compiling them is what takes long.
# The editable install compiles the "cpu" backend in place, half a minute; without a C++ compiler
# everything runs all the same, slower.
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

$(STAMPS)/dev: $(STAMPS)/venv requirements/dev.txt
	$(INSTALL) -r requirements/dev.txt
	@touch $@
