# Every target sets up what it needs first; see README.md.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

MODEL ?=
CONFIG ?= config/nuscenes.yaml
# One domain for each run, so that nothing else on the network takes part.
DOMAIN := $(shell echo $$(( $$$$ % 100 + 1 )))
ENV := . .ros/env.sh && export ROS_DOMAIN_ID=$(DOMAIN) ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST &&

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## */\t/' | expand -t 14

setup:  ## ROS 2 (from wheels where none is sourced), libraries and this package, in .ros/
	@bash ros_from_pip/setup.sh

lint: setup  ## ruff, ruff format, mypy, import-linter
	@$(ENV) ruff check . && ruff format --check . && mypy && lint-imports

# A node and its listeners want the machine for themselves; everything else shares it, a core for each test.
WITH_ROS := test/nodes test/ros_from_pip test/demo/live
WITHOUT_ROS := $(addprefix --ignore=,$(WITH_ROS)) -n auto --dist loadfile

test: setup  ## all tests, in the built package
	@$(ENV) OMP_NUM_THREADS=1 pytest $(WITHOUT_ROS)
	@$(ENV) pytest $(WITH_ROS)

unit: setup  ## quick tests that need no ROS
	@$(ENV) OMP_NUM_THREADS=1 pytest -m "not slow" $(WITHOUT_ROS)

run: setup  ## BAG=path [MODEL=preset] [CONFIG=file]: play a bag through the node
	@[[ -n "$(BAG)" ]] || { echo 'make run: BAG is empty; give a rosbag2, as in: make run BAG=drive.mcap' >&2; exit 2; }
	@$(ENV) bash scripts/run_bag.sh "$(BAG)" "$(CONFIG)" "$(MODEL)"

demo: setup  ## [RVIZ=1] [MODEL=preset] [RATE=0.25]: a simulated drive with failing sensors; writes demo/report.html
	@$(ENV) aqr_perception demo demo --model $(or $(MODEL),aqr_tiny) --rate $(or $(RATE),0.25) $(if $(filter 1,$(RVIZ)),--rviz)

benchmark: setup  ## time of one frame, and of the cross-attention, on this machine
	@$(ENV) aqr_perception benchmark frame --model $(or $(MODEL),aqr_tiny) && aqr_perception benchmark attention

clean:  ## remove everything that setup made
	rm -rf .ros

.PHONY: help setup lint test unit run demo benchmark clean
