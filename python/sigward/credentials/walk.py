"""What one walk of the chain may take, and what it hears of the time: of botocore's parts that ask servers and read files.

Each answer is read to a bound (`MOST`), head and framing with it, and none after the walk's end, however slowly it comes: it fails then,
as one that does not come at all. Answers are dated: keys expire by the clock of whoever gives them, not by this host's.
"""

import contextlib
import functools
import io
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from sigward.bounds import MOST, TooLargeError, read_file, size

if TYPE_CHECKING:
    from botocore.utils import JSONFileCache

FARTHEST = 86_400.0
"""Seconds: a clock that differs from ours by more is not followed, as in the engine (`MOST_SKEW`)."""
NOTICED = 60.0
"""Seconds between two clocks that matter."""


def ticks() -> float:
    """Seconds of a clock that nobody sets, and that goes on while the host sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


NO_TIME = "Expiration is no time such as 2026-01-31T12:00:00Z"


def unix_seconds(expires: str | datetime) -> float:
    """Without a time zone it is UTC. Raises `ValueError` for what is no time, or is not within UTC's years 1 to 9999. A number is none:
    botocore takes one for Unix seconds at one place and for a date at another."""
    from botocore.utils import parse_timestamp

    try:
        if isinstance(expires, str):
            expires = parse_timestamp("none" if is_number(expires) else expires)
        return expires.replace(tzinfo=expires.tzinfo or UTC).astimezone(UTC).timestamp()
    except (ValueError, OverflowError, RuntimeError):
        raise ValueError(NO_TIME) from None


def is_number(text: str) -> bool:
    """True for what Python takes for one."""
    with contextlib.suppress(ValueError):
        float(text)
        return True
    return False


class Walk(threading.local):
    """One thread's. `end`: of `time.monotonic`. `asked`: the providers so far, in order. `offset`: Unix seconds when `ticks` was 0, as an
    answer has told; None: none has."""

    end: float = math.inf
    offset: float | None = None

    def __init__(self) -> None:
        self.known: Callable[[], float] = time.time
        self.asked: list[str] = []

    def begin(self, seconds: float, known: Callable[[], float], asked: list[str]) -> None:
        """`known`: the time as it is known before anybody has answered. `asked`: is added to; another thread may look at it."""
        self.end, self.offset, self.known, self.asked = time.monotonic() + seconds, None, known, asked

    def time(self) -> float:
        """Unix seconds, as well as they are known."""
        return self.known() if self.offset is None else ticks() + self.offset

    def now(self) -> datetime:
        """The same with a time zone."""
        return datetime.fromtimestamp(self.time(), UTC)

    def surprised(self) -> bool:
        """True if the time is another than the walk began with, and an answer was the first to say so."""
        return self.offset is not None and abs(self.time() - self.known()) > NOTICED

    def hear(self, date: str | None) -> None:
        """Of an answer's `Date`."""
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            theirs = parsedate_to_datetime(date or "")
            seconds = (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)).timestamp()
            if abs(seconds - time.time()) <= FARTHEST:
                self.offset = seconds - ticks()

    def left(self) -> float:
        """Seconds, > 0. Raises `TimeoutError` after the walk's end."""
        if (left := self.end - time.monotonic()) <= 0:
            raise TimeoutError("it answers too slowly")
        return left


walk = Walk()


class Counted(io.RawIOBase):
    """What comes from a socket, up to the bound. It waits for none of it longer than the walk takes."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw, self._left, self._sock = raw, MOST, sock

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Raises `TooLargeError`, `TimeoutError`."""
        if (left := walk.left()) < (self._sock.gettimeout() or math.inf):
            self._sock.settimeout(left)
        count = self._raw.readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise TooLargeError(f"the answer is longer than {size(MOST)}")
        return count

    def close(self) -> None:
        """The socket's part too."""
        self._raw.close()
        super().close()


@functools.cache
def _pools() -> Mapping[str, type]:
    """botocore's, whose answers are bounded from their first byte on."""
    import http.client

    from botocore import awsrequest

    class Response(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *given: Any, **more: Any) -> None:
            super().__init__(sock, *given, **more)
            self.fp = io.BufferedReader(Counted(self.fp.detach(), sock))

    class Plain(awsrequest.AWSHTTPConnection):
        response_class = Response  # type: ignore[assignment]

    class Secure(awsrequest.AWSHTTPSConnection):
        response_class = Response  # type: ignore[assignment]

    class PlainPool(awsrequest.AWSHTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(awsrequest.AWSHTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def bound_session(session: Any) -> None:
    """Of a `URLLib3Session`: private attributes of botocore's, pinned by tests/unit/credentials/test_bounds.py."""
    session._pool_classes_by_scheme = session._manager.pool_classes_by_scheme = _pools()
    send = session.send

    def heard(request: Any) -> Any:
        answer = send(request)
        walk.hear(answer.headers.get("date"))
        return answer

    session.send = heard


def bound_client(client: Any) -> None:
    """The same of a client, which then signs by the walk's time: AWS refuses what is signed by a clock that is wrong."""
    from botocore.auth import SigV4Auth

    bound_session(client._endpoint.http_session)
    signer = client._request_signer
    make = signer.get_auth_instance

    def made(*given: Any, **more: Any) -> Any:
        auth = make(*given, **more)
        if type(auth).__name__ == "CrtSigV4Auth":
            # With the C library botocore leaves the time to nobody else.
            auth = SigV4Auth(auth.credentials, auth._service_name, auth._region_name)
        prepare = getattr(auth, "_modify_request_before_signing", None)
        if prepare is not None:

            def dated(request: Any) -> Any:
                request.context["timestamp"] = walk.now().strftime("%Y%m%dT%H%M%SZ")
                return prepare(request)

            auth._modify_request_before_signing = dated
        return auth

    signer.get_auth_instance = made


class TokenFile:
    """botocore's `FileWebIdentityTokenLoader`, bounded."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self) -> str:
        """The token. Raises OSError, `ValueError`."""
        return read_file(self._path).decode()


def bounded_cache(cache: Any) -> "JSONFileCache":
    """The same files, bounded. What cannot be read is not there, as ever."""
    import json

    from botocore.utils import JSONFileCache

    class Bounded(JSONFileCache):
        _convert_cache_key: Any

        def __getitem__(self, cache_key: str) -> Any:
            try:
                return json.loads(read_file(self._convert_cache_key(cache_key)))
            except (OSError, ValueError):
                raise KeyError(cache_key) from None

    return Bounded(cache._working_dir, cache._dumps)
