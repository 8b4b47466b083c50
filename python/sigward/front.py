"""What both fronts are: options, errors, and the native one's end in Python.

The native front serves in Rust alone; Python starts it, answers its calls for credentials, and drains it. mitmproxy's is in `sigward.mitm`.
"""

import asyncio
import inspect
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sigward import _core
from sigward.ca import CertificateAuthority
from sigward.errors import CaError, SigwardError
from sigward.plan import Web

logger = logging.getLogger(__name__)


class FrontError(SigwardError):
    """The front cannot start; the message names the address and why."""

    slug = "front-failed"
    exit_code = 69


@dataclass(frozen=True)
class ReverseListener:
    """`listen`: "HOST:PORT". `upstream`: "https://host[:port]", or None: the Host header names the AWS endpoint."""

    listen: str
    upstream: str | None


@dataclass(frozen=True)
class FrontOptions:
    """`forward`, `transparent`: "HOST:PORT" (port 0: a free one), None: no such listener; `transparent` on "localhost:PORT" is on both
    loopback addresses. `body_hold`: bytes. `grace`: seconds. `web`: mitmproxy's front alone; None: no pages."""

    forward: str | None
    reverse: tuple[ReverseListener, ...]
    ca_dir: Path
    body_hold: int
    grace: float
    addons: tuple[object, ...] = ()
    transparent: str | None = None
    web: Web | None = None


def log_event(event: tuple[Any, ...]) -> None:
    """A line of the engine's, to Python's log: `event` is one of `EVENT_LOG`."""
    _, level, name, message, fields = event
    text = " ".join([message, *(f"{key}={value}" for key, value in fields)])
    # A line of JSON has each by itself.
    logging.getLogger(name).log(level, "%s", text, extra={"said": (message, dict(fields))})


def load_authority(engine: _core.Engine, ca_dir: Path, *, needed: bool = False) -> None:
    """Hands the CA to the engine, and warns in the log if nothing limits it. `needed`: nobody can be served once it has expired. Raises
    `CaError`."""
    path = CertificateAuthority(ca_dir).key_file
    try:
        limited = engine.load_authority(str(path), needed)
    except ValueError as error:
        raise CaError(f"{error}.", hint="Move the file away; sigward makes a new CA, which clients must trust again.") from error
    if not limited:
        logger.warning("whoever has the key in %s can stand in for any host. `sigward ca renew` makes a CA that is limited to AWS's", path)


class NativeFront:
    """Rust from socket to socket; the same to the command line as `sigward.mitm.Front`."""

    def __init__(self, engine: _core.Engine, options: FrontOptions, on_refresh: Callable[[str], None]) -> None:
        self.engine = engine
        self.options = options
        self.on_refresh = on_refresh
        self.addresses: dict[str, tuple[str, int]] = {}
        self._closed = asyncio.Event()

    async def start(self) -> None:
        """Binds every listener; they accept when it returns. Raises `FrontError`."""
        load_authority(self.engine, self.options.ca_dir, needed=not self.options.reverse)
        asyncio.get_running_loop().add_reader(self.engine.fileno(), self._take)
        at = ""
        try:
            if self.options.forward is not None:
                at = self.options.forward
                self.addresses["forward"] = self.engine.listen(at, "forward")
            for number, listener in enumerate(self.options.reverse):
                at = listener.listen
                self.addresses[f"reverse:{number}"] = self.engine.listen(at, "reverse", listener.upstream)
            if self.options.transparent is not None:
                at = self.options.transparent
                self._listen_transparent(at)
        except (OSError, ValueError) as error:
            asyncio.get_running_loop().remove_reader(self.engine.fileno())
            raise FrontError(
                f"cannot listen on {at}: {error}.",
                hint="Is the address in use? Choose another with --listen or --reverse; port 0 takes a free one.",
            ) from error

    def _listen_transparent(self, at: str) -> None:
        """REDIRECT leads to the loopback address of the connection's own family: on "localhost:PORT" that is both, if there are two."""
        host, _, port = at.rpartition(":")
        if host != "localhost":
            self.addresses["transparent"] = self.engine.listen(at, "transparent")
            return
        bound = self.engine.listen(f"127.0.0.1:{port}", "transparent")
        self.addresses["transparent"] = bound
        if has_ipv6_loopback():
            self.addresses["transparent-ipv6"] = self.engine.listen(f"[::1]:{bound[1]}", "transparent")

    def _take(self) -> None:
        for event in self.engine.poll():
            if event[0] == _core.EVENT_REFRESH:
                self.on_refresh(str(event[1]))
            elif event[0] == _core.EVENT_LOG:
                log_event(event)

    async def drain(self) -> None:
        """No new connections; what is under way may end within the grace; then all closes."""
        self.engine.drain()
        end = time.monotonic() + self.options.grace
        # The engine's threads tell no event loop of it.
        while (self.engine.in_flight() or self.engine.draining()) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if left := self.engine.in_flight():
            logger.warning("%d requests did not end within the grace of %g s", left, self.options.grace)
        self.engine.cut()
        self._take()
        asyncio.get_running_loop().remove_reader(self.engine.fileno())
        self._closed.set()

    async def wait_closed(self) -> None:
        """Returns when it has drained."""
        await self._closed.wait()


def has_ipv6_loopback() -> bool:
    """False e.g. in pods of a cluster without IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def loop_factory() -> asyncio.AbstractEventLoop:
    """uvloop where it is to be had: a tenth more requests a second.

    uvloop's `create_task` and CPython 3.13.0's eager task factory disagree about one argument: the factory is wrapped.
    """
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    if "eager_start" not in inspect.signature(asyncio.eager_task_factory).parameters:
        _teach_eager_start()
    return uvloop.new_event_loop()


def _teach_eager_start() -> None:
    original: Any = asyncio.eager_task_factory

    def eager_task_factory(loop: Any, coro: Any, *, eager_start: bool = True, **kwargs: Any) -> Any:
        return original(loop, coro, **kwargs) if eager_start else asyncio.Task(coro, loop=loop, **kwargs)

    asyncio.eager_task_factory = eager_task_factory
