"""A source that does not work, and those that wait for it: one of them at a time tries, the pauses grow, and all of them hear of it."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sigward.credentials.chain import Failure


class Outage[Waiter]:
    """`due`: when the next one tries, by the caller's clock. `failure`: of the last that did. `logged`: when. Not thread-safe."""

    def __init__(self) -> None:
        self.due = -math.inf
        self.failure: Failure | None = None
        self.logged: float | None = None
        self._ended = -math.inf
        self._next: Waiter | None = None
        """Who tries at `due`, or tries now."""
        self._tries = False
        self._parked: dict[Waiter, None] = {}

    def admits(self, waiter: Waiter, now: float) -> bool:
        """True if this one may try now."""
        return self.failure is None or not (self._tries or now < self.due or (self._next is not None and self._next is not waiter))

    def begin(self, waiter: Waiter) -> None:
        """It tries. Before it is known that the source does not work, any number do."""
        if self.failure is not None:
            self._next, self._tries = waiter, True
            self._parked.pop(waiter, None)

    def park(self, waiter: Waiter) -> bool:
        """It waits. True if it is the one who tries next."""
        if self._next is None:
            self._next = waiter
        if self._next is waiter:
            return not self._tries
        self._parked[waiter] = None
        return False

    def failed(self, waiter: Waiter, failure: "Failure", now: float, pause: float) -> None:
        """Of the one who tries, or of the first: the next try is after the pause. Others had begun before it was known."""
        if self.failure is None or (self._next is waiter and self._tries):
            self.failure, self._ended, self.due = failure, now, now + pause
            self._next, self._tries = waiter, False

    def sooner(self, waiter: Waiter, least: float) -> Waiter | None:
        """Somebody asks for a waiter's keys now. Who is to try sooner for that, if anybody; `least`: seconds after the last one did."""
        if self._tries or self._next is None or (waiter is not self._next and waiter not in self._parked):
            return None
        self.due = min(self.due, self._ended + least)
        return self._next

    def leave(self, waiter: Waiter) -> Waiter | None:
        """It waits and tries no more. Who tries next in its place, if it was to."""
        self._parked.pop(waiter, None)
        if self._next is not waiter:
            return None
        self._next, self._tries = next(iter(self._parked), None), False
        if self._next is not None:
            del self._parked[self._next]
        return self._next

    def waiting(self) -> list[Waiter]:
        """All that wait."""
        return [*([] if self._next is None else [self._next]), *self._parked]
