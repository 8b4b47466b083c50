"""Every behaviour that a client or an upstream can see, through every front.

A case gets `proxy`: a running front with its engine behind it and a raw upstream that stands for AWS.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sigward import _core
from sigward.ca import CertificateAuthority
from sigward.front import FrontOptions, NativeFront, ReverseListener, loop_factory
from sigward.mitm import Front
from tests.support import KEY, SECRET, Response, Upstream, connected, engine_settings, read_response

HOST = "sqs.us-east-1.amazonaws.com"


@dataclass
class Proxy:
    """One front, running."""

    front: Front | NativeFront
    engine: _core.Engine
    upstream: Upstream
    ca_file: Path
    settings: dict[str, Any]
    on_refresh: Callable[[str], None] = lambda _: None

    def left(self) -> bool:
        """True while the engine, or what stands before it, has a request."""
        return bool(self.engine.in_flight() or (isinstance(self.front, Front) and self.front.bridge.pending))

    def busy(self) -> bool:
        """True while a request is under way, or still being read from its client."""
        return self.front.bridge.busy() if isinstance(self.front, Front) else bool(self.engine.in_flight())

    @property
    def forward(self) -> tuple[str, int]:
        return self.front.addresses["forward"]

    def point_to(self, port: int, **settings: Any) -> None:
        """Sends AWS's hosts to another local upstream, which has the same certificate."""
        self.engine.configure(engine_settings(port, self.ca_file.parent.parent / "upstream.pem", **(self.settings | settings)))

    @property
    def reverse(self) -> tuple[str, int]:
        """Host names the endpoint."""
        return self.front.addresses["reverse:0"]

    @property
    def fixed(self) -> tuple[str, int]:
        """Its upstream is HOST."""
        return self.front.addresses["reverse:1"]

    async def ask(self, raw: bytes, *, to: tuple[str, int] | None = None, patience: float = 20) -> Response:
        """Sends bytes to the reverse listener on a connection of their own; reads one response, within so many seconds."""
        async with connected(to or self.reverse) as (reader, writer):
            writer.write(raw)
            method = raw.split(b" ", 1)[0].decode()
            return await asyncio.wait_for(read_response(reader, method), patience)

    @contextlib.asynccontextmanager
    async def tunnel(
        self, authority: str, sni: str | None, alpn: list[str] | None = None, *, send_sni: bool = True
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """CONNECT, then TLS with sigward's CA trusted (and the upstream's).

        `sni`: the name that is sent and verified; without `send_sni` none is sent, and the chain alone is verified.
        """
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.load_verify_locations(cadata=self.upstream.ca.cert_pem.bytes().decode())
        if alpn:
            context.set_alpn_protocols(alpn)
        async with connected(self.forward) as (reader, writer):
            writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            response = await read_response(reader, "HEAD")
            if response.status != 200:
                raise ConnectionRefusedError(response.status, response.get("x-sigward-error"))
            context.check_hostname = send_sni
            await writer.start_tls(context, server_hostname=sni if send_sni else "")
            yield reader, writer


Start = Callable[..., Any]


@pytest_asyncio.fixture(params=["mitmproxy", "native"])
async def start(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a front: `await start(upstream, addons=(), **engine_settings)`. `options`: more of `FrontOptions`."""
    if request.param == "native" and (marker := request.node.get_closest_marker("mitmproxy")):
        pytest.skip(f"of mitmproxy's front alone: {marker.args[0]}")
    if request.param == "mitmproxy" and (marker := request.node.get_closest_marker("native")):
        pytest.skip(f"of the native front alone: {marker.args[0]}")
    stack = contextlib.AsyncExitStack()

    async def starter(
        upstream: Upstream,
        *,
        addons: tuple[object, ...] = (),
        credentials: bool = True,
        token: str | None = None,
        grace: float = 1.0,
        options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Proxy:
        made: list[Proxy] = []
        ca_file = upstream.write_ca(tmp_path / "upstream.pem")
        engine = _core.Engine(engine_settings(upstream.port, ca_file, **settings))
        stack.callback(engine.close)
        if credentials:
            engine.set_credentials("default", KEY, SECRET, token, None, "test")
        authority = CertificateAuthority(tmp_path / "ca")
        authority.ensure()
        front_options = FrontOptions(
            forward="127.0.0.1:0",
            reverse=(ReverseListener("127.0.0.1:0", None), ReverseListener("127.0.0.1:0", f"https://{HOST}")),
            ca_dir=authority.directory,
            body_hold=settings.get("body", {}).get("hold", 1 << 20),
            grace=grace,
            addons=addons,
        )
        front_options = replace(front_options, **(options or {}))

        def refresh(name: str) -> None:
            made[0].on_refresh(name)

        front = (NativeFront if request.param == "native" else Front)(engine, front_options, refresh)
        await front.start()
        stack.push_async_callback(front.drain)
        made.append(Proxy(front, engine, upstream, authority.certificate_file, settings))
        return made[0]

    async with stack:
        yield starter


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as running:
        yield running


@pytest_asyncio.fixture
async def proxy(start: Start, upstream: Upstream) -> Proxy:
    """The usual one."""
    running: Proxy = await start(upstream)
    return running


class ServingPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes the loop that `sigward serve` runs on."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return loop_factory()


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """pytest-asyncio's."""
    return ServingPolicy()
