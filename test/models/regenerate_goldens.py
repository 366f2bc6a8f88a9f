"""Record the samples that `test_published_goldens` compares with.

    python test/models/regenerate_goldens.py [PRESET ...]

Run it only after a deliberate change of a published model's results, while the tests against the authors' outputs pass.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import numpy as np  # noqa: E402
from helpers import published_goldens  # noqa: E402


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
