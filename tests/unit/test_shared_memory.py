"""When regions are made and given back, as a stand-in for the server is told of them."""

import asyncio

from client._shared_memory import Regions
from tests.shared_memory import files


def test_one_that_is_too_small_is_given_back_before_a_larger_one_is_made() -> None:
    asked = []

    async def ask(what: str, *arguments: object) -> list[dict[str, str]]:
        await asyncio.sleep(0)
        asked.append((what.split("_", maxsplit=1)[0], len(files() - before)))
        return []

    async def hold_both() -> None:
        regions = Regions(ask)
        for size in (10, 1_000_000):
            async with regions.holding([bytes(size)]):
                pass
        await regions.close()

    before = files()
    asyncio.run(hold_both())
    assert asked == [
        ("get", 0),
        ("register", 1),
        ("unregister", 1),
        ("register", 1),
        ("unregister", 1),
    ]
