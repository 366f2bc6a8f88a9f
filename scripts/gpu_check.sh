#!/usr/bin/env bash
# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0

# Everything that needs a GPU, within 8 minutes: CUDA tests, recorded outputs in three precisions, benchmarks.
#
#   scripts/gpu_check.sh [FOLDER]     results in FOLDER (default: gpu_check), summary in FOLDER/summary.json
#
# Each step has its own time limit, and a step that fails does not end the others. Without a GPU, the summary has
# "measured": false, and the status is 0. With one, the status is 1 if a step failed.
set -u
cd "$(dirname "$0")/.."
out=${1:-gpu_check}
total=${GPU_CHECK_SECONDS:-470}
mkdir -p "$out" || exit 2
export PYTHONPATH="$PWD:$PWD/test${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}
rm -f "$out"/*.json "$out"/*.log "$out"/steps.tsv
: > "$out/steps.tsv"
begin=$SECONDS
cli="$python -m aqr_perception.cli"

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2> "$out/torch.log"; then
  echo 'gpu_check: PyTorch finds no GPU here; nothing was measured'
  echo '{"measured": false, "reason": "PyTorch finds no CUDA device"}' > "$out/summary.json"
  exit 0
fi

# step NAME SECONDS COMMAND...: run with a time limit, at most the time that is left
step() {
  local name=$1 limit=$2 left=$((total - (SECONDS - begin))) start=$SECONDS status
  shift 2
  ((left < limit)) && limit=$left
  if ((limit < 5)); then
    status=skipped
  else
    timeout --kill-after=5 "$limit" "$@" > "$out/$name.log" 2>&1
    status=$?
    ((status == 124 || status == 137)) && status="time limit of $limit s"
  fi
  printf '%s\t%s\t%s\n' "$name" "$status" $((SECONDS - start)) >> "$out/steps.tsv"
  echo "gpu_check: $name: $status ($((SECONDS - start)) s)"
}

step tests 90 "$python" -m pytest -q -p no:cacheprovider -k 'cuda or fused or flex' test/models test/training/losses
for precision in fp32 bf16 fp16; do
  step "goldens_$precision" 45 "$python" -m helpers.goldens_on_device cuda "$precision" "$out/goldens_$precision.json"
done
# FlexAttention and the fused deformable kernel.
step attention 40 $cli benchmark attention --device cuda --repeats 20 --json "$out/attention.json"
step deformable 30 $cli benchmark deformable --device cuda --repeats 20 --json "$out/deformable.json"
for model in aqr_tiny cmt_voxel0100_r50_800x320; do
  step "graphs_$model" 40 $cli benchmark frame --model "$model" --checkpoint random --device cuda \
    --compare cuda_graphs=off,on --seconds 10 --json "$out/graphs_$model.json"
done
# Images are uploaded once, as uint8, in all of these.
for file in config/models/*.yaml; do
  model=$(basename "$file" .yaml)
  step "frame_$model" 30 $cli benchmark frame --model "$model" --checkpoint random --device cuda --repeats 20 \
    --json "$out/frame_$model.json"
done

"$python" - "$out" << 'PYTHON'
import json, sys
from pathlib import Path

import torch

folder = Path(sys.argv[1])
steps = [line.split("\t") for line in (folder / "steps.tsv").read_text().splitlines()]
figures = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
summary = {
    "measured": True,
    "device": torch.cuda.get_device_name(),
    "torch": torch.__version__,
    "steps": [{"name": name, "status": status, "seconds": int(seconds)} for name, status, seconds in steps],
    "figures": figures,
}
(folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
PYTHON
! cut -f 2 "$out/steps.tsv" | grep -qvx 0
