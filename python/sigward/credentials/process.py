"""A program that prints keys: it has so much time and may print so much. When it fails, what it started ends with it.

After a success that goes on: it may be an agent that the next call asks.
"""

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from typing import IO, Any

from sigward.bounds import MOST, TooLargeError, size
from sigward.credentials.walk import unix_seconds
from sigward.descriptors import for_child

_running: "weakref.WeakSet[CredentialProcess]" = weakref.WeakSet()


class CredentialProcess(subprocess.Popen[bytes]):
    """A credential_process as botocore runs one, which would wait for it for ever and take all that it prints.

    It is done when it has ended and its JSON text is there: what it leaves behind may hold its standard output open, and is not waited for.
    """

    def __init__(self, command: list[str], seconds: float, **pipes: Any) -> None:
        # A session of its own: what it starts can be ended with it.
        super().__init__(for_child(command), stdin=subprocess.DEVNULL, start_new_session=True, **pipes)
        self.seconds = seconds
        _running.add(self)

    def communicate(
        self,
        input: bytes | None = None,  # noqa: A002 - Popen's name for it
        timeout: float | None = None,
    ) -> tuple[bytes, bytes]:
        """(stdout, stderr). Raises `TimeoutError` when it takes too long and `TooLargeError` when it prints too much; `ValueError` for what
        botocore would stumble over."""
        try:
            out, err = self._printed(self.seconds if timeout is None else timeout)
            if self._status():
                self.end()
            else:
                check_printed(out)
        except BaseException:
            self.end()
            raise
        finally:
            for pipe in (self.stdout, self.stderr):
                if pipe is not None:
                    pipe.close()
            self.poll()
        # botocore's message holds what is on stderr, which need not be UTF-8, nor be there.
        said = err.decode(errors="replace").strip() or f"it ended with status {self.returncode} and wrote nothing on stderr"
        return out, said.encode()

    def _printed(self, seconds: float) -> tuple[bytes, bytes]:
        end = time.monotonic() + seconds
        out, err = bytearray(), bytearray()
        opened: dict[IO[bytes], tuple[str, bytearray]] = {}
        if self.stdout is not None and self.stderr is not None:
            opened = {self.stdout: ("printed", out), self.stderr: ("wrote on stderr", err)}
        with selectors.DefaultSelector() as waiting, self._descriptor() as process:
            for stream in opened:
                os.set_blocking(stream.fileno(), False)
                waiting.register(stream, selectors.EVENT_READ)
            if process is not None:
                waiting.register(process, selectors.EVENT_READ)
            while True:
                # Asked before its output is read: then all of that is there.
                status = self._status()
                for stream, (verb, content) in list(opened.items()):
                    if self._drain(stream, verb, content):
                        waiting.unregister(stream)
                        del opened[stream]
                if status is not None:
                    if status or self.stdout not in opened or is_json(bytes(out)):
                        return bytes(out), bytes(err)
                    if process is not None and process in waiting.get_map():
                        waiting.unregister(process)
                if (left := end - time.monotonic()) <= 0:
                    raise TimeoutError(f"credential_process gave no answer within {seconds:.3g} s and was killed")
                waiting.select(left if process is not None else min(left, 0.05))

    def _drain(self, stream: IO[bytes], verb: str, content: bytearray) -> bool:
        """Takes what is there. True at its end."""
        while True:
            try:
                piece = os.read(stream.fileno(), 1 << 16)
            except BlockingIOError:
                return False
            if not piece:
                return True
            content += piece
            if len(content) > MOST:
                raise TooLargeError(f"credential_process {verb} more than {size(MOST)} and was killed")

    @contextlib.contextmanager
    def _descriptor(self) -> Iterator[int | None]:
        """Can be read when the process ends. None: the system has no such thing."""
        pidfd_open = getattr(os, "pidfd_open", None)
        try:
            descriptor = pidfd_open(self.pid) if pidfd_open else None
        except OSError:
            descriptor = None
        if descriptor is None:
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _status(self) -> int | None:
        """0 when it has ended well, else another; None: it runs. It stays a zombie: no other process can have its number meanwhile."""
        if sys.platform == "darwin":
            return self.poll()
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return self.poll()
        return None if ended is None else int(ended.si_code != os.CLD_EXITED or ended.si_status != 0)

    def end(self) -> None:
        """Kills it and what it has started, as long as its number cannot be another's: until somebody has asked how it ended."""
        if self.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            # One that waits for a dead disk cannot be killed.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(1)


@atexit.register
def end_all() -> None:
    """Whoever waited for them goes."""
    for process in list(_running):
        process.end()


def is_json(printed: bytes) -> bool:
    """True for a whole JSON text."""
    try:
        json.loads(printed)
    except (ValueError, RecursionError):
        return False
    return True


def check_printed(out: bytes) -> None:
    """Raises `ValueError` for what botocore would stumble over: it takes any JSON for an object, and any text for a time."""
    printed = json.loads(out)
    if not isinstance(printed, dict):
        raise ValueError(f"a JSON object is expected, and it printed a {type(printed).__name__}")
    for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"):
        if not isinstance(printed.get(name), str | None):
            raise ValueError(f"{name} must be a string")
    if (expiration := printed.get("Expiration")) is not None:
        unix_seconds(expiration)
