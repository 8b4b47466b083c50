"""What unit tests share."""

from pathlib import Path

import pytest

from tests.shell import Shell


@pytest.fixture
def sigward(tmp_path: Path) -> Shell:
    """The command line, in a home of its own."""
    return Shell(tmp_path)
