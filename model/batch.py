"""Batches that form by themselves: what gathers while a round trip is under way travels in the next one.

Nothing ever waits for a batch to fill. Where a trip costs much more than an item, those that come in company may rest
in between (``rest_s``); few callers never do. Used wherever many callers share one statement, transaction or call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

from tenure.model.errors import BoundExceeded

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def pieces(
    items: Iterable[Item], weigh: Callable[[Item], int], *, max_weight: int, max_items: int
) -> Iterator[list[Item]]:
    """Cut items into pieces of no more weight than that; one that weighs more is a piece of its own."""
    piece: list[Item] = []
    weight = 0
    for item in items:
        own = weigh(item)
        if piece and (weight + own > max_weight or len(piece) == max_items):
            yield piece
            piece, weight = [], 0
        piece.append(item)
        weight += own
    if piece:
        yield piece


REST = 3.0
"""In company, from the beginning of a batch to that of the next: so many times what the last one took."""
COMPANY = 4
"""More callers than these are company: for fewer a rest costs more than it saves, since they wait for each other."""


class Batcher(Generic[Item, Answer]):
    """Gathers items and hands them to ``carry_out`` in batches.

    ``carry_out`` returns one answer per item, in order; an exception among the answers is raised to its caller
    alone, one that is raised goes to every caller of the batch. Cancelling a caller does not cancel its item.
    No batch weighs more than ``max_weight``, but for one item that does so by itself. ``rest_s`` bounds how long
    callers wait that come in company: more than ``COMPANY`` wait now, or did when the last batch began.
    """

    def __init__(
        self,
        carry_out: Callable[[list[Item]], Awaitable[Sequence[Answer | Exception]]],
        *,
        max_items: int,
        in_flight: int = 1,
        max_waiting: int = 20_000,
        weigh: Callable[[Item], int] = lambda item: 0,
        max_weight: int = 0,
        rest_s: float = 0.0,
        name: str = "batch",
    ) -> None:
        self._carry_out = carry_out
        self._max_items = max_items
        self._in_flight = in_flight
        self._max_waiting = max_waiting
        self._weigh = weigh
        self._max_weight = max_weight
        self._rest_s = rest_s
        self._name = name
        self._callers = 0
        """Whose items wait."""
        self._had_company = False
        self._took_s = self._rests_until = 0.0
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._more = asyncio.Event()

    async def run(self) -> None:
        """Carry out batches until cancelled: the body of a task."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._in_flight):
                group.create_task(self._lane(), name=f"{self._name}-{number}")

    async def ask(self, item: Item) -> Answer:
        """Add an item to the next batch and return its answer.

        Raises:
            BoundExceeded: too many items are waiting; whatever ``carry_out`` gives for this item.
        """
        future = self._add(item)
        self._callers += 1
        return await future

    def add(self, items: Iterable[Item]) -> list[asyncio.Future[Answer]]:
        """Add the items of one caller to the next batches; their answers are to come.

        Raises:
            BoundExceeded: too many items are waiting; some of these may be among them.
        """
        futures = [self._add(item) for item in items]
        self._callers += bool(futures)
        return futures

    def _add(self, item: Item) -> asyncio.Future[Answer]:
        if len(self._waiting) >= self._max_waiting:
            raise BoundExceeded(f"{self._name}: {self._max_waiting} requests are waiting", hint="try again later")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._more.set()
        return future

    def _next(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        waiting = islice(self._waiting, self._max_items)
        batch = next(
            pieces(waiting, lambda one: self._weigh(one[0]), max_weight=self._max_weight, max_items=self._max_items)
        )
        for _ in batch:
            self._waiting.popleft()
        return batch

    async def _rest(self) -> None:
        wait_s = self._rests_until - asyncio.get_running_loop().time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    async def _lane(self) -> None:
        while True:
            while not self._waiting:
                self._more.clear()
                await self._more.wait()
            if self._had_company or self._callers > COMPANY:
                await self._rest()
                if not self._waiting:
                    continue  # another lane has taken them
            batch = self._next()
            began = asyncio.get_running_loop().time()
            self._had_company, self._callers = self._callers > COMPANY, 0
            self._rests_until = began + min(self._rest_s, REST * self._took_s)
            try:
                answers = await self._carry_out([item for item, _ in batch])
            except Exception as exc:  # to the callers: they own the decision
                answers = [exc] * len(batch)
            except asyncio.CancelledError:
                for _, future in batch:
                    future.cancel()
                raise
            self._took_s = asyncio.get_running_loop().time() - began
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue  # its caller has gone
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
