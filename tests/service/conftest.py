from collections.abc import AsyncIterator

import pytest

from service.house import House, house


@pytest.fixture
async def service() -> AsyncIterator[House]:
    async with house() as made:
        yield made
