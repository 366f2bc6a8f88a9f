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
export BAG CONFIG MODEL RATE RVIZ
# One ROS domain for each run, so that no other node takes part.
DOMAIN := $(shell echo $$(( $$$$ % 100 + 1 )))
ENV := . .ros/env.sh && export ROS_DOMAIN_ID=$(DOMAIN) ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST &&

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## */\t/' | expand -t 14

setup:  ## install ROS 2 (from wheels where none is sourced), libraries and this package into .ros/
	@bash ros_from_pip/setup.sh

lint: setup  ## run ruff, ruff format, mypy and import-linter
	@$(ENV) ruff check . && ruff format --check . && mypy && lint-imports

# Tests that measure the times of a running node run one at a time, because they are sensitive to load. The others run in
# parallel, one core each; each worker has its own ROS domain, and conftest.py puts long files first.
ALONE := $(addprefix test/nodes/test_,bag_player.py perception_node.py process.py quiet_means_said_why.py several_lidars.py) test/benchmarks/live
WITH_ROS := test/nodes test/offline/test_same_as_the_node.py test/ros_from_pip $(sort $(wildcard test/*/live))
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
# Bytecode is kept even where the environment forbids it: else every process rewrites the assertions of all tests.
# Threads that wait do not spin, because several processes share the cores.
TEST_ENV := $(ENV) export PYTHONDONTWRITEBYTECODE= OMP_WAIT_POLICY=passive &&

test: setup  ## run all tests, with the node over DDS
	@$(TEST_ENV) OMP_NUM_THREADS=1 pytest $(PARALLEL) $(addprefix --ignore=,$(ALONE))
	@$(TEST_ENV) pytest $(ALONE)

unit: setup  ## run the quick tests, which need no ROS
	@$(TEST_ENV) OMP_NUM_THREADS=1 AQR_TEST_EXAMPLES=few pytest -m "not slow" $(PARALLEL) $(addprefix --ignore=,$(WITH_ROS))

run: setup  ## BAG=path [MODEL=preset] [CONFIG=file]: play a bag through the node
	@[[ -n "$$BAG" ]] || { echo 'make run: BAG is empty; give a rosbag2, for example make run BAG=drive.mcap' >&2; exit 2; }
	@$(ENV) bash scripts/run_bag.sh "$$BAG" "$$CONFIG" "$$MODEL"

demo: setup  ## [RVIZ=1] [MODEL=preset] [RATE=1]: play a simulated drive with failing sensors; write demo/report.html
	@$(ENV) aqr_perception demo demo --model "$${MODEL:-aqr_tiny}" --rate "$${RATE:-1}" $$([[ "$$RVIZ" != 1 ]] || echo --rviz)

benchmark: setup  ## measure a frame and the cross-attention on this machine
	@$(ENV) aqr_perception benchmark frame --model "$${MODEL:-aqr_tiny}" && aqr_perception benchmark attention

clean:  ## remove everything that the set-up made
	rm -rf .ros

.PHONY: help setup lint test unit run demo benchmark clean
