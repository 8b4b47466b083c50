"""How much work an HTTP/2 client may make that no request pays for. Called by `internals`, for every frame; a plain ledger.

Some frames cost their sender nothing and their reader much: streams that are opened and reset at once (CVE-2023-44487), streams that
the server is made to reset (CVE-2025-8671), and PING, SETTINGS, PRIORITY, empty DATA without end (CVE-2019-9512 and its kin).
Whoever sends more of them than any real client is told ENHANCE_YOUR_CALM (RFC 9113, section 10.5).
"""

import time

RESETS = 1000.0
"""What resets may cost at once. A client that cancels everything has `internals.STREAMS` streams at most."""

RESETS_RATE = 50.0
"""Of that, what comes back in a second; each answer brings back one more."""

RESET = 1.0
"""The cost of a request that its client cancels."""

WASTE = 5.0
"""The cost of a stream that never was a request: reset with the bytes that opened it, or reset by us because it broke a rule."""

FRAMES = 2000.0
"""What other frames may cost at once, one each. A client that sends on while our RST_STREAM is on its way sends hundreds of them."""

FRAMES_RATE = 500.0
"""Of that, what comes back in a second."""

FRAMES_PER_SENT = 4.0
"""What each frame that we send brings back: a client that reads answers with WINDOW_UPDATE for its stream and its connection."""

BYTES_PER_FRAME = 64
"""A frame without data costs one more for each of so many bytes: SETTINGS may carry thousands of settings."""


class Allowance:
    """A bucket that is refilled by the clock. `most`: what it holds; `rate`: a second."""

    def __init__(self, most: float, rate: float) -> None:
        self.most, self.rate = most, rate
        self._left, self._since = most, time.monotonic()

    def spend(self, cost: float) -> bool:
        """False: there was not so much left."""
        if self._left < cost:
            # The clock is looked at only when it matters.
            now = time.monotonic()
            self._left = min(self.most, self._left + (now - self._since) * self.rate)
            self._since = now
            if self._left < cost:
                return False
        self._left -= cost
        return True

    def earn(self, amount: float) -> None:
        """Something was done that shows a real client."""
        self._left = min(self.most, self._left + amount)


class Ledger:
    """What one connection has left."""

    def __init__(self) -> None:
        self._resets = Allowance(RESETS, RESETS_RATE)
        self._frames = Allowance(FRAMES, FRAMES_RATE)

    def frame(self, size: int) -> bool:
        """A frame that carries no request, `size` bytes long. False: one too many."""
        return self._frames.spend(1 + size // BYTES_PER_FRAME)

    def reset(self, *, wasted: bool) -> bool:
        """A stream that ends by a reset. `wasted`: it never was a request. False: one too many."""
        return self._resets.spend(WASTE if wasted else RESET)

    def sent(self, frames: int) -> None:
        """Frames that go to the client."""
        self._frames.earn(frames * FRAMES_PER_SENT)

    def answered(self) -> None:
        """A request has its answer."""
        self._resets.earn(RESET)
