# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0

# Every target runs the set-up first; see README.md.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CONFIG ?= config/nuscenes.yaml
# The shells of the recipes take these values from the environment, exactly as given: neither make nor a shell expands them.
override BAG := $(value BAG)
override CONFIG := $(value CONFIG)
override MODEL := $(value MODEL)
override RATE := $(value RATE)
override RVIZ := $(value RVIZ)
override DISTRO := $(value DISTRO)
export BAG CONFIG DISTRO MODEL RATE RVIZ
# One ROS domain for each run, so that no other node takes part.
DOMAIN := $(shell echo $$(( $$$$ % 100 + 1 )))
# DISTRO chooses the distribution of ROS 2's wheels; see ros_from_pip/setup.sh.
ENV := case $$DISTRO in ""|kilted) . .ros/env.sh;; *) . ".ros-$$DISTRO/env.sh";; esac && export ROS_DOMAIN_ID=$(DOMAIN) ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST &&

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## */\t/' | expand -t 14

setup:  ## [DISTRO=kilted|jazzy] install ROS 2 (from wheels where none is sourced), libraries and this package into .ros/
	@bash ros_from_pip/setup.sh

lint: setup  ## run ruff, ruff format, mypy, import-linter, hadolint and the check of SPDX lines
	@$(ENV) ruff check . && ruff format --check . && mypy && lint-imports && python3 scripts/spdx.py
	@$(ENV) ! command -v hadolint >/dev/null || hadolint Dockerfile .devcontainer/Dockerfile

# Tests that measure the times of a running node run one at a time, because they are sensitive to load. The others run in
# parallel, one core each; each worker has its own ROS domain, and conftest.py puts long files first.
ALONE := $(addprefix test/nodes/test_,bag_player.py perception_node.py process.py quiet_means_said_why.py several_lidars.py) test/benchmarks/live
WITH_ROS := test/nodes test/offline/test_same_as_the_node.py test/ros_from_pip $(sort $(wildcard test/*/live))
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
# Bytecode is kept even where the environment forbids it: else every process rewrites the assertions of all tests.
# Threads that wait do not spin, because several processes share the cores.
TEST_ENV := $(ENV) export PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=passive &&

test: setup  ## [DISTRO=jazzy] run all tests, with the node over DDS
	@$(TEST_ENV) OMP_NUM_THREADS=1 pytest $(PARALLEL) $(addprefix --ignore=,$(ALONE))
	@$(TEST_ENV) pytest $(ALONE)

unit: setup  ## run the quick tests, which need no ROS
	@$(TEST_ENV) OMP_NUM_THREADS=1 AQR_TEST_EXAMPLES=few pytest -m "not slow" $(PARALLEL) $(addprefix --ignore=,$(WITH_ROS))

docs: setup  ## build the documentation into site/, with checks of its links and of what is generated from the code
	@$(ENV) python3 -m pip install --quiet --disable-pip-version-check -r ros_from_pip/requirements_docs.txt
	@$(ENV) python3 scripts/write_reference.py --check
	@$(ENV) NO_MKDOCS_2_WARNING=1 mkdocs build --strict  # with --quiet, warnings do not count
	@echo 'documentation: site/index.html; with the search: python3 -m http.server --directory site'

run: setup  ## BAG=path [MODEL=preset] [CONFIG=file]: play a bag through the node
	@[[ -n "$$BAG" ]] || { echo 'make run: BAG is empty; give a rosbag2, for example make run BAG=drive.mcap' >&2; exit 2; }
	@$(ENV) bash scripts/run_bag.sh "$$BAG" "$$CONFIG" "$$MODEL"

demo: setup  ## [RVIZ=1] [MODEL=preset] [RATE=1]: play a simulated drive with failing sensors; write demo/report.html
	@$(ENV) aqr_perception demo demo --model "$${MODEL:-aqr_tiny}" --rate "$${RATE:-1}" $$([[ "$$RVIZ" != 1 ]] || echo --rviz)

train-tiny: setup  ## train the weights of aqr_tiny by config/training/aqr_tiny.yaml in runs/aqr_tiny; run it again to resume
	@$(ENV) bash scripts/fetch_efficientnet.sh && aqr_perception train --plan config/training/aqr_tiny.yaml

benchmark: setup  ## measure a frame and the cross-attention on this machine
	@$(ENV) aqr_perception benchmark frame --model "$${MODEL:-aqr_tiny}" && aqr_perception benchmark attention

clean:  ## remove everything that the set-up made
	rm -rf .ros .ros-jazzy

.PHONY: help setup lint test unit docs run demo train-tiny benchmark clean
