"""A wall clock that a test moves under a running process, with libfaketime. The monotonic clock stays: timeouts take as long as ever."""

from pathlib import Path

from tests.needs import needs, where

LIBRARY = where("libfaketime")

needs_moved_clock = needs("libfaketime")


class MovedClock:
    """`environment`: variables for the process, e.g. `Gateway(upstream, upstream.credentials() | clock.environment)`."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "moved-clock"
        self.move(0)
        self.environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Else each wait with a timeout returns at once, and two threads of Python's spin for the interpreter.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "NO_FAKE_STAT": "1",
        }

    def move(self, seconds: float) -> None:
        """The process is this far ahead of the real time, from now on."""
        # Renamed into place: the process never reads half a file.
        written = self._file.with_suffix(".new")
        written.write_text(f"{seconds:+f}\n")
        written.replace(self._file)
