#!/usr/bin/env bash
# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0

# Start the node, play a bag into it and stop it: run_bag.sh BAG CONFIG [MODEL]
set -euo pipefail
bag=$1 config=$2 model=${3:-}

fail() { echo "run_bag.sh: $*" >&2; exit 2; }
[[ -e $bag ]] || fail "$bag: found no such bag, needed a rosbag2 folder, or a single .mcap or .db3 file"
[[ -f $config ]] || fail "$config: found no such file, needed a parameter file of the node, for example config/nuscenes.yaml"

perception_node --ros-args --params-file "$config" -p use_sim_time:=true ${model:+-p model.preset:="$model"} &
node=$!
bag_player --clock --wait 30 -- "$bag" &
player=$!
trap 'kill -TERM $node $player 2>/dev/null || true; wait || true' EXIT
# The first of the two to end: a node that cannot start must not let the bag play to nobody.
wait -n
