import pytest

from dotmac.tasks import MemoryStorage
from runtime.nodes import Ledger


@pytest.fixture
def shared() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()
