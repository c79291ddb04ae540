"""What comes in from a peer, and how long to wait for it."""

import asyncio
from collections.abc import Callable

# Seconds that any one wait may take. Generous: the machine may be busy.
LIMIT = 20.0


class Feed(list):
    """Items in the order they came, with a way to wait for more of them."""

    def __init__(self) -> None:
        super().__init__()
        self._came = asyncio.Event()

    def add(self, item: object) -> None:
        self.append(item)
        self._came.set()

    async def until(self, enough: Callable[[list], object], what: str, limit: float = LIMIT) -> None:
        """Returns when `enough` holds; fails with `what` was missing when it does not in time."""
        try:
            async with asyncio.timeout(limit):
                while not enough(self):
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            raise AssertionError(f"no {what} within {limit} s; came: {len(self)}, last: {self[-1:]}") from None

    async def more(self, count: int, what: str) -> list:
        """The next `count` items."""
        start = len(self)
        await self.until(lambda it: len(it) >= start + count, what)
        return self[start : start + count]
