"""Lets the report's tests use the demo's made-up drive."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))
