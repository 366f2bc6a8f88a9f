"""Lets the tests here share a small model and its cameras."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
