"""Public recordings and policies that are not part of the project: where they are, or why a test does without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("REALIGN_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


def shared(path: str) -> Path:
    """That file or folder of the shared data; the test is skipped where there is none."""
    found = ROOT / path
    if not found.exists():
        pytest.skip(f"needs {path} of the shared data; set REALIGN_DATA to the folder that has it")
    return found
