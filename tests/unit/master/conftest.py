"""An object of the master has around it what it needs, for as long as a test."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.unit.master.around import Around


@pytest.fixture
def around() -> Iterator[Around]:
    with ExitStack() as opened:
        yield Around(opened)
