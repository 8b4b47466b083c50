"""One background owner of one identity's keys, and the pool of threads that runs all of them.

A keeper loads at the start, refreshes ahead of expiry, one load at a time, and publishes immutable snapshots. Requests never wait for it
unless there are no keys at all; while a refresh fails, the old keys serve until they truly expire.
"""

import heapq
import itertools
import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from sigward.credentials import files
from sigward.credentials.chain import REFUSED, Chain, Failure, Found, Snapshot, in_use, unexpired
from sigward.credentials.files import stamp
from sigward.credentials.outage import Outage
from sigward.credentials.walk import ticks

logger = logging.getLogger(__name__)

ADVISORY = 15 * 60.0
"""Seconds before expiry from which keys are renewed, as botocore's advisory window."""
JITTER = 60.0
"""Up to so many seconds are added, so that a fleet does not call STS at once."""
URGENT = 10 * 60.0
"""Seconds before expiry from which failed loads are repeated faster."""
FIRST_RETRY, LAST_RETRY, URGENT_RETRY = 1.0, 60.0, 10.0
"""Seconds between failed loads: doubled from the first to the last; to the third of them when it is urgent."""
REFUSED_RETRY = 15.0
"""The first of them where AWS has refused: a person must change something."""
REMINDER = 10 * 60.0
"""Seconds after which a failure that stays the same is logged again."""
SPREAD = 1.0
"""Seconds over which those are loaded that have waited for a source, once it works again."""
EXTENSION = 10 * 60.0
"""Seconds that an instance's last keys are used on where its metadata service does not give others: AWS takes them as long as its own
renewal is late (static stability)."""
INSTANCE = "iam-role"
MFA = ("mfa-session", "assume-role")
"""Providers whose keys may be those of a session that only a person can open anew."""


class Keeper:
    """`publish` and `fail` hand a walk's outcome to the engine, `fail` as clients may know it. `pool`: what runs it; None: one of its own.
    `hear`: gets the seconds that a source's clock is ahead of this host's. `clock`: Unix seconds, as well as they are known without one.

    `clock`, and `wait` of a pool of its own, are for tests; see `Pool`.
    """

    def __init__(
        self,
        chain: Chain,
        publish: Callable[[Snapshot], None],
        fail: Callable[[tuple[tuple[str, str], ...]], None],
        *,
        clock: Callable[[], float] = time.time,
        wait: Callable[[threading.Event, float | None], bool] = threading.Event.wait,
        pool: "Pool | None" = None,
        hear: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._chain, self._publish, self._fail = chain, publish, fail
        self._clock, self._pool = clock, pool or Pool(1, clock=clock, wait=wait)
        self._wake = threading.Event()
        self._loaded = threading.Event()
        self._failures = 0
        self._hear = hear
        self._offset: float | None = None
        self._logged: tuple[str, float] | None = None
        self.asks: frozenset[str] = getattr(chain, "asks", frozenset())
        """Sources that it needs, as far as is known. The pool's."""
        self.snapshot: Snapshot | None = None
        self.failure: Failure | None = None
        """Of the last load; None: it went well."""

    def start(self) -> None:
        """Begins to load, in the background."""
        self._pool.add(self)

    def request_refresh(self) -> None:
        """A request waits for keys: loads now. Calls while a load runs are one."""
        self._wake.set()
        self._pool.hurry(self)

    def wait_loaded(self, timeout: float) -> bool:
        """Waits for the end of the first load, well or badly."""
        return self._loaded.wait(timeout)

    def close(self) -> None:
        """It is run no more; what it is at ends."""
        self._pool.remove(self)

    def turn(self) -> float | None:
        """Loads once. Returns the seconds until the next load; None: only when asked."""
        self.load()
        self._loaded.set()
        return self.pause()

    def is_asked(self) -> bool:
        """True if somebody has asked for keys since the last load."""
        return self._wake.is_set()

    def load(self) -> None:
        """Walks the chain once and publishes what came of it."""
        outcome = self._chain.load(self._now)
        if outcome.offset is not None:
            self._offset = outcome.offset
            self._hear(round(self._now() - time.time()))
        # Whoever asked until now is answered by what is published next; whoever asks after it needs another walk.
        self._wake.clear()
        if isinstance(outcome, Failure):
            self._failed(outcome)
        else:
            self._found(outcome)

    def shares(self, failure: Failure) -> None:
        """Another that asks the same source has failed: this one would too."""
        self.failure = failure
        self._wake.clear()
        self._fail(failure.for_clients())
        self._extend()
        self._loaded.set()

    def _now(self) -> float:
        """By the source's clock, if it has told: keys expire by that, and this host's may be wrong."""
        return self._clock() if self._offset is None else ticks() + self._offset

    def _found(self, outcome: Found) -> None:
        snapshot = outcome.snapshot
        expired = unexpired(outcome, self._now())
        if isinstance(expired, Failure) and self.snapshot is not None and (self.snapshot.expires_at or math.inf) > self._now():
            self._failed(expired)
            return
        try:
            self._publish(snapshot)
        except Exception as error:
            self._failed(Failure((*outcome.passed, (snapshot.provider, str(error))), kind="its keys cannot be used"))
            return
        if isinstance(expired, Failure):
            # An endpoint that knows the time better may take them.
            self._failed(expired)
            return
        self._failures, self._logged = 0, None
        same = self.snapshot is not None and self.snapshot.expires_at == snapshot.expires_at
        self.snapshot, self.failure = snapshot, None
        left = math.inf if snapshot.expires_at is None else snapshot.expires_at - self._now()
        if same and left <= ADVISORY + JITTER and snapshot.provider.startswith(MFA):
            logger.warning("the session from %s expires in %d min: `sigward login` opens the next", snapshot.provider, left // 60)
            return
        logger.info("credentials from %s%s", snapshot.provider, "" if snapshot.expires_at is None else ", temporary")

    def _failed(self, failure: Failure) -> None:
        self._failures += 1
        self.failure = failure
        self._log(failure)
        self._fail(failure.for_clients())
        self._extend()

    def _log(self, failure: Failure) -> None:
        """Once, until something else is wrong; of a source that many ask, one of them."""
        line = "no credentials: {}: {}".format(*failure.cause)
        if self._logged is not None and self._logged[0] == line and ticks() - self._logged[1] < REMINDER:
            return
        self._logged = line, ticks()
        if failure.down is None or self._pool.is_news(failure.down, ticks()):
            logger.warning("%s", line)

    def _extend(self) -> None:
        """Keeps an instance's last keys in use when they are about to run out and there are no others."""
        last = self.snapshot
        if last is None or last.expires_at is None or last.provider != INSTANCE or last.expires_at - self._now() > LAST_RETRY:
            return
        self.snapshot = replace(last, expires_at=self._now() + EXTENSION * random.uniform(0.5, 1.0))  # noqa: S311
        self._publish(self.snapshot)
        logger.warning("the metadata service gives no new keys: the last ones are used on, as long as AWS takes them")

    def pause(self) -> float | None:
        """Seconds until the next load; None: only when asked. Grows with failures, is short near expiry."""
        if self._failures:
            expires = self.snapshot.expires_at if self.snapshot else None
            most = URGENT_RETRY if expires is not None and expires - self._now() <= URGENT else LAST_RETRY
            first = REFUSED_RETRY if self.failure is not None and self.failure.kind == REFUSED else FIRST_RETRY
            backoff: float = min(most, first * 2 ** min(self._failures - 1, 10))
            return backoff * random.uniform(0.5, 1.0)  # noqa: S311 - spread, not secrecy
        if self.snapshot is None or self.snapshot.expires_at is None:
            return None
        left = self.snapshot.expires_at - self._now()
        ahead = min(ADVISORY, left / 2) + random.uniform(0, min(JITTER, left / 4))  # noqa: S311
        return max(1.0, left - ahead)


class Pool:
    """Runs keepers: at most `most` of them load at a time, and one thread waits for the next that is due.

    Before it loads, the thread that waited lets another wait, so that a source that hangs holds up nobody else before `most` of them do,
    and those only until their walks' deadlines. Of those that need a source that does not work, one at a time tries it; the others wait for
    what becomes of that. `clock` and `wait(event, seconds)` (for the event, at most so long, None: for ever) are
    for tests.
    """

    def __init__(
        self,
        most: int = 32,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float | None], bool] = threading.Event.wait,
    ) -> None:
        self._most, self._clock, self._wait = most, clock, wait
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._count = itertools.count()
        self._queue: list[tuple[float, int, Keeper]] = []
        self._valid: dict[Keeper, int | None] = {}
        """Of each keeper its entry in the queue that counts; None: it loads, or is to load only when asked."""
        self._loading: set[Keeper] = set()
        self._waiting = False
        self._outages: dict[str, Outage[Keeper]] = {}
        self._kept: list[object] = []
        self.threads: set[threading.Thread] = set()

    def add(self, keeper: Keeper) -> None:
        """Loads it as soon as may be, and from then on whenever it says."""
        with self._lock:
            self._push(keeper, self._clock())
            self._watch()

    def hurry(self, keeper: Keeper) -> None:
        """It is due now; if it loads, or is not there, nothing happens."""
        with self._lock:
            if keeper in self._valid and keeper not in self._loading:
                self._push(keeper, -math.inf)
                for outage in self._outages.values():
                    if (sooner := outage.sooner(keeper, FIRST_RETRY)) is not None:
                        self._push(sooner, outage.due)
                self._watch()

    def is_news(self, source: str, now: float) -> bool:
        """True the first time that a source does not work, and again after `REMINDER`, until it does."""
        with self._lock:
            outage = self._outages.setdefault(source, Outage())
            if outage.logged is not None and now - outage.logged < REMINDER:
                return False
            outage.logged = now
            return True

    def remove(self, keeper: Keeper) -> None:
        """It is run no more. With the last one the threads end."""
        with self._lock:
            self._valid.pop(keeper, None)
            for outage in self._outages.values():
                self._leave(keeper, outage)
            self._news.set()

    def join(self, timeout: float) -> bool:
        """Waits for the threads to end, once the last keeper is removed. False: they have not."""
        end = time.monotonic() + timeout
        with self._lock:
            threads = list(self.threads)
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _push(self, keeper: Keeper, due: float) -> None:
        number = self._valid[keeper] = next(self._count)
        heapq.heappush(self._queue, (due, number, keeper))
        self._news.set()

    def _watch(self) -> None:
        """Sees to it that a thread waits, if there may be one more."""
        if not self._waiting and len(self.threads) < self._most:
            thread = threading.Thread(target=self._run, name="sigward-keeper", daemon=True)
            self.threads.add(thread)
            self._waiting = True
            thread.start()

    def _run(self) -> None:
        while (keeper := self._next()) is not None:
            pause = keeper.turn()
            with self._lock:
                self._loading.discard(keeper)
                self._kept = [*in_use()]
                pause = self._after(keeper, pause)
                if keeper in self._valid and (keeper.is_asked() or pause is not None):
                    self._push(keeper, -math.inf if keeper.is_asked() else self._clock() + (pause or 0))
                if self._waiting:
                    # One who waits is enough.
                    self._rest_if_idle()
                    self.threads.discard(threading.current_thread())
                    return
                self._waiting = True

    def _next(self) -> Keeper | None:
        """Waits until a keeper is due; None: there are none any more. Whoever calls is the one who waits."""
        while True:
            with self._lock:
                self._news.clear()
                if not self._valid:
                    self._waiting = False
                    self._rest_if_idle()
                    self.threads.discard(threading.current_thread())
                    return None
                left = self._left()
                if left is not None and left <= 0:
                    if (keeper := self._take()) is not None:
                        return keeper
                    continue
                self._rest_if_idle()
            self._wait(self._news, left)

    def _left(self) -> float | None:
        """Seconds until the next is due; None: nobody is."""
        while self._queue:
            due, number, keeper = self._queue[0]
            if self._valid.get(keeper) == number:
                left = due - self._clock()
                # Sums of floats are not exact.
                return 0.0 if left < 1e-6 else left
            heapq.heappop(self._queue)
        return None

    def _take(self) -> Keeper | None:
        """None: it is to wait for its source."""
        _, _, keeper = heapq.heappop(self._queue)
        self._valid[keeper] = None
        if self._waits(keeper):
            return None
        self._loading.add(keeper)
        self._waiting = False
        if len(self._valid) > 1:
            self._watch()
        return keeper

    def _waits(self, keeper: Keeper) -> bool:
        outages = [outage for source, outage in self._outages.items() if source in keeper.asks]
        closed = next((outage for outage in outages if not outage.admits(keeper, self._clock())), None)
        if closed is None:
            for outage in outages:
                outage.begin(keeper)
            return False
        if closed.failure is not None and (keeper.is_asked() or not keeper.wait_loaded(0)):
            keeper.shares(closed.failure)
        self._park(keeper, closed)
        for outage in outages:
            if outage is not closed:
                self._leave(keeper, outage)
        return True

    def _park(self, keeper: Keeper, outage: Outage[Keeper]) -> None:
        if outage.park(keeper):
            self._push(keeper, outage.due)

    def _leave(self, keeper: Keeper, outage: Outage[Keeper]) -> None:
        if (other := outage.leave(keeper)) is not None:
            self._push(other, outage.due)

    def _after(self, keeper: Keeper, pause: float | None) -> float | None:
        """Seconds until its next load, with what it has learnt of its sources."""
        failure = keeper.failure
        if failure is not None and failure.down is not None:
            keeper.asks |= {failure.down}
            outage = self._outages.setdefault(failure.down, Outage())
            outage.failed(keeper, failure, self._clock(), min(pause or LAST_RETRY, self._longest(failure)))
            if keeper in self._valid:
                self._park(keeper, outage)
            else:
                self._leave(keeper, outage)
            return None
        works = failure is None or failure.kind == REFUSED
        for source in keeper.asks & self._outages.keys():
            outage = self._outages[source]
            if works:
                del self._outages[source]
                logger.info("%s answers again", source)
                for other in outage.waiting():
                    if other in self._valid and other is not keeper:
                        self._push(other, self._clock() + random.uniform(0, SPREAD))  # noqa: S311
            else:
                self._leave(keeper, outage)
        return pause

    @staticmethod
    def _longest(failure: Failure) -> float:
        """Where there merely is no instance metadata service, there will hardly be one soon."""
        return (LAST_RETRY if failure.kind == Failure.kind else URGENT_RETRY) * random.uniform(0.5, 1.0)  # noqa: S311

    def _rest_if_idle(self) -> None:
        """Nobody loads or is about to: what the loads shared goes."""
        left = self._left()
        if not self._loading and (left is None or left > 0):
            self._kept = []
            files.forget()


class Watcher:
    """Tells keepers when one of their files has changed: a login, a renewed token, edited keys. Looks every `period` seconds."""

    def __init__(self, watched: dict[Keeper, list[str]], *, period: float = 2.0) -> None:
        self._watched, self._period = watched, period
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sigward-watcher", daemon=True)

    def start(self) -> None:
        """Begins to look; what is there now counts as known."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()

    def _run(self) -> None:
        known = self._look()
        while not self._stop.wait(self._period):
            now = self._look()
            for keeper, watched in self._watched.items():
                if any(now[file] != known[file] for file in watched):
                    logger.info("files with credentials have changed: they are read anew")
                    keeper.request_refresh()
            known = now

    def _look(self) -> dict[str, tuple[int, int, int] | None]:
        """Each file once, however many keepers it is for."""
        return {file: stamp(file) for file in set(itertools.chain.from_iterable(self._watched.values()))}
