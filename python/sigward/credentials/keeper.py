"""One background owner of one identity's keys.

It loads at the start, refreshes ahead of expiry, one load at a time, and publishes immutable snapshots. Requests never wait for it
unless there are no keys at all; while a refresh fails, the old keys serve until they truly expire.
"""

import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from sigward.credentials.chain import Chain, Failure, Found, Snapshot

logger = logging.getLogger(__name__)

ADVISORY = 15 * 60.0
"""Seconds before expiry from which keys are renewed, as botocore's advisory window."""
JITTER = 60.0
"""Up to so many seconds are added, so that a fleet does not call STS at once."""
URGENT = 10 * 60.0
"""Seconds before expiry from which failed loads are repeated faster."""
FIRST_RETRY, LAST_RETRY, URGENT_RETRY = 1.0, 60.0, 10.0
"""Seconds between failed loads: doubled from the first to the last; to the third of them when it is urgent."""
EXTENSION = 10 * 60.0
"""Seconds that an instance's last keys are used on where its metadata service does not give others: AWS takes them as long as its own
renewal is late (static stability)."""
INSTANCE = "iam-role"
MFA = ("mfa-session", "assume-role")
"""Providers whose keys may be those of a session that only a person can open anew."""


class Keeper:
    """`publish` and `fail` hand a walk's outcome to the engine; `clock` and `wait` are the time's, for tests.

    `wait(event, seconds)`: waits for the event, at most so long (None: for ever).
    """

    def __init__(
        self,
        chain: Chain,
        publish: Callable[[Snapshot], None],
        fail: Callable[[tuple[tuple[str, str], ...]], None],
        *,
        clock: Callable[[], float] = time.time,
        wait: Callable[[threading.Event, float | None], bool] = threading.Event.wait,
    ) -> None:
        self._chain, self._publish, self._fail = chain, publish, fail
        self._clock, self._wait = clock, wait
        self._wake = threading.Event()
        self._loaded = threading.Event()
        self._closed = False
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="sigward-keeper", daemon=True)
        self.snapshot: Snapshot | None = None
        self.reasons: tuple[tuple[str, str], ...] = ()

    def start(self) -> None:
        """Begins to load, in the background."""
        self._thread.start()

    def request_refresh(self) -> None:
        """A request waits for keys: loads now. Calls while a load runs are one."""
        self._wake.set()

    def wait_loaded(self, timeout: float) -> bool:
        """Waits for the end of the first load, well or badly."""
        return self._loaded.wait(timeout)

    def close(self) -> None:
        """Ends the thread after what it is at."""
        self._closed = True
        self._wake.set()

    def _run(self) -> None:
        while True:
            self.load()
            self._loaded.set()
            if self._closed or (self._wait(self._wake, self.pause()) and self._closed):
                return

    def load(self) -> None:
        """Walks the chain once and publishes what came of it."""
        outcome = self._chain.load()
        # Whoever asked until now is answered by what is published next; whoever asks after it needs another walk.
        self._wake.clear()
        if isinstance(outcome, Failure):
            self._failed(outcome.reasons)
        elif not self._is_news(outcome.snapshot):
            self._failed((*outcome.passed, (outcome.snapshot.provider, "its keys have expired already")))
        else:
            self._found(outcome)

    def _found(self, outcome: Found) -> None:
        snapshot = outcome.snapshot
        try:
            self._publish(snapshot)
        except Exception as error:
            self._failed((*outcome.passed, (snapshot.provider, str(error))))
            return
        self._failures = 0
        same = self.snapshot is not None and self.snapshot.expires_at == snapshot.expires_at
        self.snapshot, self.reasons = snapshot, ()
        left = math.inf if snapshot.expires_at is None else snapshot.expires_at - self._clock()
        if same and left <= ADVISORY + JITTER and snapshot.provider.startswith(MFA):
            logger.warning("the session from %s expires in %d min: `sigward login` opens the next", snapshot.provider, left // 60)
            return
        logger.info("credentials from %s%s", snapshot.provider, "" if snapshot.expires_at is None else ", temporary")

    def _is_news(self, snapshot: Snapshot) -> bool:
        return snapshot.expires_at is None or snapshot.expires_at > self._clock()

    def _failed(self, reasons: tuple[tuple[str, str], ...]) -> None:
        self._failures += 1
        self.reasons = reasons
        provider, why = reasons[-1] if reasons else ("chain", "it is empty")
        logger.warning("no credentials: %s: %s", provider, why)
        self._fail(reasons or ((provider, why),))
        self._extend()

    def _extend(self) -> None:
        """Keeps an instance's last keys in use when they are about to run out and there are no others."""
        last = self.snapshot
        if last is None or last.expires_at is None or last.provider != INSTANCE or last.expires_at - self._clock() > LAST_RETRY:
            return
        self.snapshot = replace(last, expires_at=self._clock() + EXTENSION * random.uniform(0.5, 1.0))  # noqa: S311
        self._publish(self.snapshot)
        logger.warning("the metadata service gives no new keys: the last ones are used on, as long as AWS takes them")

    def pause(self) -> float | None:
        """Seconds until the next load; None: only when asked. Grows with failures, is short near expiry."""
        if self._failures:
            expires = self.snapshot.expires_at if self.snapshot else None
            most = URGENT_RETRY if expires is not None and expires - self._clock() <= URGENT else LAST_RETRY
            backoff: float = min(most, FIRST_RETRY * 2 ** min(self._failures - 1, 10))
            return backoff * random.uniform(0.5, 1.0)  # noqa: S311 - spread, not secrecy
        if self.snapshot is None or self.snapshot.expires_at is None:
            return None
        left = self.snapshot.expires_at - self._clock()
        ahead = min(ADVISORY, left / 2) + random.uniform(0, min(JITTER, left / 4))  # noqa: S311
        return max(1.0, left - ahead)


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
        known = {keeper: [stamp(file) for file in files] for keeper, files in self._watched.items()}
        while not self._stop.wait(self._period):
            for keeper, files in self._watched.items():
                now = [stamp(file) for file in files]
                if now != known[keeper]:
                    known[keeper] = now
                    logger.info("files with credentials have changed: they are read anew")
                    keeper.request_refresh()


def stamp(file: str) -> tuple[int, int, int] | None:
    """What changes when a file does; of a directory, when files come and go. None: it is not there."""
    try:
        found = os.stat(file)  # noqa: PTH116
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
