import pytest

from actors.stage import Stage


@pytest.fixture
def stage() -> Stage:
    return Stage()
