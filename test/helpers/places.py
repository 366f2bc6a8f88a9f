"""Folders that tests read: this checkout, and the reference data of published models, which users do not have."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT.parent / "shared" / "reference"
