"""Lets the tests here, and the processes they start, share the stand-in model and data."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
