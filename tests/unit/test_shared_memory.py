"""Shared memory: when regions are created and released, and the server's error messages."""

import asyncio

import pytest
from tritonclient.utils import InferenceServerException

from client import InvalidRequest
from client._endpoint import Endpoint
from client._shared_memory import Regions
from client._translation import translated
from tests.shared_memory import files


def test_a_region_that_is_too_small_is_released_before_a_larger_one_is_created() -> None:
    calls = []

    async def call(method: str, *arguments: object) -> list[dict[str, str]]:
        await asyncio.sleep(0)
        calls.append((method.split("_", maxsplit=1)[0], len(files() - before)))
        return []

    async def hold_both() -> None:
        regions = Regions(call)
        for size in (10, 1_000_000):
            async with regions.holding([bytes(size)]):
                pass
        await regions.close()

    before = files()
    asyncio.run(hold_both())
    assert calls == [
        ("get", 0),
        ("register", 1),
        ("unregister", 1),
        ("register", 1),
        ("unregister", 1),
    ]


# The embedded Triton 2.51 has no such option and cannot send this message.
@pytest.mark.parametrize(
    "option", ["--allow-client-shm=true", "'--allow-client-shm=true' to enable."]
)
@pytest.mark.parametrize("status", ["StatusCode.UNAVAILABLE", "StatusCode.INTERNAL", "400", "500"])
def test_a_server_with_shared_memory_disabled_is_one_line_that_names_the_option(
    status: str, option: str
) -> None:
    message = f"Client shared memory is disabled. Start the server with {option}"
    with (
        pytest.raises(
            InvalidRequest,
            match=r"^the server does not accept shared memory; start it with "
            r"--allow-client-shm=true$",
        ),
        translated(Endpoint.parse("localhost"), ()),
    ):
        raise InferenceServerException(message, status)
