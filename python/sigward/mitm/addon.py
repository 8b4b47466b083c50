"""The addons: which connections are intercepted, where a request is bound for, and that nothing fails open.

mitmproxy swallows what a hook raises and lets the request go on. Here a hook that raises refuses the request: ours by `refusing`,
other people's by `EngineAddonManager` in `front.py`.
"""

import asyncio
import functools
import logging
import socket
from collections.abc import Callable
from typing import Any

from mitmproxy import connection, http, tcp, tls
from mitmproxy.exceptions import AddonHalt
from mitmproxy.net.http import url
from mitmproxy.proxy import layer
from mitmproxy.proxy.layers import TCPLayer
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from sigward import _core
from sigward.ca import RENEW
from sigward.mitm.bridge import Bridge
from sigward.mitm.internals import MESSAGE_LIMIT, EngineHttpLayer, http_layer_to_adopt, is_inside_connect
from sigward.mitm.refusals import refusal, refuse_flow

logger = logging.getLogger(__name__)

TLS_TELLING = 3
"""Bytes that tell TLS: a record's type and version."""

HTTP = 80
"""The port of an absolute URL that gives none."""

LONGEST_LINE = 64 << 10
"""Bytes without an end of line after which a client's first bytes are no HTTP request."""

EVENT_STREAM = "application/vnd.amazon.eventstream"
"""The type of a body whose messages are signed one by one."""


def refusing[**P](hook: Callable[P, None]) -> Callable[P, None]:
    """A hook that raises refuses the request."""

    @functools.wraps(hook)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            hook(*args, **kwargs)
        except Exception:
            logger.exception("hook %s failed", hook.__name__)
            flow: Any = args[-1]
            refuse_flow(flow, f"A hook of sigward's ({hook.__name__}) failed.")

    return wrapped


def same_host(one: str, other: str) -> bool:
    """True if two names are one host: case and a trailing dot mean nothing."""
    return one.lower().rstrip(".") == other.lower().rstrip(".")


def is_undecided(data: bytes) -> bool:
    """True if a client's first bytes are too few to tell TLS, HTTP and other protocols apart."""
    return 0 < len(data) < TLS_TELLING or (len(data) <= LONGEST_LINE and data[:3].isalpha() and b"\n" not in data)


def not_vouched(host: str) -> str:
    """Why clients would refuse this host's certificate, and the mend."""
    return f"{host!r} is not among the hosts that clients take a certificate of sigward's CA for. {RENEW}"


@functools.lru_cache(maxsize=1000)
def tell_unvouched(name: str) -> None:
    """To the log, once for each name: a client only says that the handshake failed."""
    logger.warning("clients will refuse the certificate: %s", not_vouched(name))


class Tunnels:
    """Comes before mitmproxy's own decisions: what is not intercepted passes untouched, but never to a local address."""

    def __init__(self, engine: _core.Engine) -> None:
        self.engine = engine

    def intercepts(self, address: tuple[str, int] | None) -> bool:
        """True if a CONNECT to this address is to be looked into. Its own name decides, not SNI or Host."""
        return address is not None and self.engine.intercepts(address[0], address[1])

    def next_layer(self, next_layer: layer.NextLayer) -> None:
        """After CONNECT, whatever is not for an intercepted host is bytes."""
        context = next_layer.context
        if is_inside_connect(context) and not self.intercepts(context.server.address):
            next_layer.layer = TCPLayer(context, ignore=True)
        elif is_undecided(next_layer.data_client()):
            # mitmproxy would take what it cannot tell yet for raw bytes. It asks again when more has come.
            raise AddonHalt

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        """TLS inside an intercepted CONNECT, unless its SNI names another host than CONNECT did: that is not signed for."""
        address, sni = data.context.server.address, data.client_hello.sni
        if not is_inside_connect(data.context):
            if sni is not None and not self.engine.vouches_for(sni):
                tell_unvouched(sni)
            return
        data.ignore_connection = not self.intercepts(address) or (
            sni is not None and address is not None and not same_host(sni, address[0])
        )
        if data.ignore_connection and not self.engine.tunnels():
            # Without an address it leads nowhere.
            data.context.server.address = None

    async def http_connect(self, flow: http.HTTPFlow) -> None:
        """Refuses a tunnel to a local address while the client can still be told."""
        host, port = flow.request.host, flow.request.port
        if _core.normal_host(host) is None:
            flow.response = refusal(400, "bad-target", f"CONNECT names {host!r}, which is no host.")
            return
        if self.intercepts((host, port)):
            if not self.engine.vouches_for(host):
                flow.response = refusal(403, "not-vouched-for", not_vouched(host))
            return
        if not self.engine.tunnels():
            flow.response = refusal(
                403,
                "missing-authentication-token",
                f"{host!r} would be reached through a tunnel, and only requests that are signed with an issued key are served here "
                "(clients.required).",
            )
            return
        try:
            await self.allowed_address(host, port)
        except (OSError, UnicodeError) as error:
            flow.response = refusal(502, "connect-failed", f"no connection to {host!r}: {error}. Check the host's name.")
        except ValueError:
            flow.response = refusal(
                403,
                "forbidden-address",
                f"{host!r} is a loopback, link-local or metadata address: a program that asks a proxy for it ignores NO_PROXY. "
                "Call it directly. If it is meant, name the host in a [[route]].",
            )

    async def server_connect(self, data: ServerConnectionHookData) -> None:
        """mitmproxy is about to open a tunnel: to an address that was looked at, not to whatever the name says next."""
        address = data.server.address
        if address is None:
            data.server.error = "no destination"
            return
        if not self.engine.tunnels():
            # Whatever protocol it is taken for: HTTP goes through the engine, all else would be a tunnel.
            data.server.error = "only requests that are signed with an issued key are served (clients.required)"
            return
        try:
            data.server.address = (await self.allowed_address(address[0], address[1]), address[1])
        except (OSError, ValueError) as error:
            data.server.error = str(error)

    async def allowed_address(self, host: str, port: int) -> str:
        """The first address of a host that clients may reach. Raises ValueError if there is none, OSError if it does not resolve."""
        named = _core.normal_host(host)
        if named is None:
            raise OSError(f"{host!r} is no host")
        if self.engine.may_connect(named):
            infos = await asyncio.get_running_loop().getaddrinfo(named, port, type=socket.SOCK_STREAM)
            for address in (str(info[4][0]) for info in infos):
                if self.engine.may_connect(named, address):
                    return address
        raise ValueError(f"{host!r} has local addresses only")


class Sign:
    """Comes last: makes the engine the upstream half of every HTTP layer, and says where requests to reverse listeners are bound for."""

    def __init__(self, bridge: Bridge, upstreams: dict[str, tuple[str, str, int] | None]) -> None:
        self.bridge = bridge
        self.upstreams = upstreams

    def next_layer(self, next_layer: layer.NextLayer) -> None:
        """Adopts the HTTP layer that mitmproxy has just made."""
        if http_layer := http_layer_to_adopt(next_layer):
            EngineHttpLayer.adopt(http_layer, self.bridge)

    @refusing
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """A reverse listener's upstream, or the endpoint that Host names."""
        if flow.request.headers.get("content-type") == EVENT_STREAM:
            # Its client may wait for an answer before it sends more.
            flow.request.stream = True
        if flow.request.http_version == "HTTP/1.0":
            # RFC 9110, section 10.1.1: it knows no 100.
            flow.request.headers.pop("expect", None)
        mode = flow.client_conn.proxy_mode
        if mode.type_name != "reverse":
            return
        # Of HTTP/2, h2 has compared the two.
        named, meant = flow.request.data.authority.decode("latin-1"), flow.request.headers.get("host")
        if meant is not None and named and not flow.request.is_http2 and not _core.same_authority(named, meant, HTTP):
            flow.response = refusal(421, "host-mismatch", f"the request target names {named!r}, and the Host header {meant!r}.")
            return
        listener = mode.data.split("://")[-1].split(":")[0]
        upstream = self.upstreams.get(listener)
        data = flow.request.data
        if upstream is not None:
            scheme, data.host, data.port = upstream
            data.scheme = scheme.encode()
            return
        try:
            host, port = url.parse_authority(flow.request.host_header or flow.request.authority or "", check=True)
            if _core.normal_host(host) is None:
                raise ValueError("no host")
        except ValueError:
            flow.response = refusal(
                400,
                "bad-host",
                "the Host header does not name a host; this listener sends a request to the AWS endpoint that Host names.",
            )
            return
        data.scheme, data.host, data.port = b"https", host, 443 if port in (None, 80) else port

    def websocket_message(self, flow: http.HTTPFlow) -> None:
        """mitmproxy keeps all messages of a connection; the last few are enough to look at."""
        if flow.websocket is not None:
            del flow.websocket.messages[:-MESSAGE_LIMIT]

    def tcp_message(self, flow: tcp.TCPFlow) -> None:
        """The same for raw upgrades."""
        del flow.messages[:-MESSAGE_LIMIT]

    def client_disconnected(self, client: connection.Client) -> None:
        """Ends what is left of a client's jobs."""
        self.bridge.client_gone(self.bridge.handlers(client.id))
