# SPDX-FileCopyrightText: aqr_perception maintainers
# SPDX-License-Identifier: Apache-2.0
"""Record the samples that `test_published_goldens` compares with.

    PYTHONPATH=.:test python test/models/regenerate_goldens.py [PRESET ...]

Run it only after a deliberate change of a published model's results, while the tests against the authors' outputs pass.
"""

import sys

import numpy as np
from helpers import published_goldens


def main(names: list[str]) -> None:
    for name in names or published_goldens.CASES:
        golden = published_goldens.compute(name)
        for stage, samples in golden.items():
            print(f"{name} {stage}: {samples.mean():.4f} +- {samples.std():.4f}")
        path = published_goldens.GOLDENS / f"{name}.npz"
        np.savez_compressed(path, **golden)  # type: ignore[arg-type]
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
