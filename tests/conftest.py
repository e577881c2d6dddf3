"""Fixtures that several test modules share."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def reference():
    """Folder of numbers recorded from the original system; only beside a development checkout."""
    folder = REPOSITORY.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip("the recorded reference numbers are not part of a clone")
    return folder
