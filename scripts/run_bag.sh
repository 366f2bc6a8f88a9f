#!/usr/bin/env bash
# Start the node, play a bag into it and stop it: run_bag.sh BAG CONFIG [MODEL]
set -euo pipefail
bag=$1 config=$2 model=${3:-}

perception_node --ros-args --params-file "$config" -p use_sim_time:=true ${model:+-p model.preset:="$model"} &
node=$!
trap 'kill -INT $node 2>/dev/null; wait $node 2>/dev/null || true' EXIT
bag_player "$bag" --clock --wait 30
