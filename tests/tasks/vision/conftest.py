"""What the tests of the vision task share."""

from __future__ import annotations

from pathlib import Path

import pytest
from shapes import draw_folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `shapes.draw_folder`, to be read only."""
    return draw_folder(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def own_shapes(tmp_path: Path) -> Path:
    """The same, to spoil."""
    return draw_folder(tmp_path / "own")
