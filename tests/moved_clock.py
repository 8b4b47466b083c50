"""A wall clock that a test moves under a running process. The monotonic clock stays: time-outs take as long as ever.

Not libfaketime: even where it leaves the monotonic clock alone it changes waits, so that some spin and others fail.
"""

import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class MovedClock:
    """`environment`: variables for the process, e.g. `Gateway(upstream, upstream.credentials() | clock.environment)`."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "moved-clock"
        self.move(0)
        library = directory / "moved-clock.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl", "-lm"], check=True)
        self.environment = {"LD_PRELOAD": str(library), "MOVED_CLOCK": str(self._file)}

    def move(self, seconds: float) -> None:
        """The process is this far ahead of the real time, from now on."""
        # In place: the process has this very file.
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("d", seconds))
