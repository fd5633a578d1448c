"""Calls a function on several cores, in threads: decoding and linear algebra release the GIL."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 4  # items for each core that wait or are done, beyond the one that is yielded


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], cores: int
) -> Iterator[Result]:
    """Call a function with each item, and yield the results in the order of the items.

    Items are taken when they are needed. After an error or an interruption no further calls begin,
    and those that run are not waited for: fitting a layer to many images takes minutes.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(cores)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > AHEAD * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
