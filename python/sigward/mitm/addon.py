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
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import TCPLayer
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from sigward import _core
from sigward.ca import RENEW
from sigward.mitm.bridge import Bridge
from sigward.mitm.internals import MESSAGE_LIMIT, EngineHttpLayer, adopt_tls, http_layer_to_adopt, is_inside_connect
from sigward.mitm.log_once import once_a_day
from sigward.mitm.refusals import refusal, refuse_flow

logger = logging.getLogger(__name__)

TLS_TELLING = 3
"""Bytes that tell TLS: a record's type and version."""

LONGEST_LINE = 64 << 10
"""Bytes without an end of line after which a client's first bytes are no HTTP request."""

HTTP = 80
"""The port of an absolute URL that gives none."""

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


def is_undecided(kind: str, data: bytes) -> bool:
    """True if a client's first bytes are too few for mitmproxy: it wants a request line whole, and three bytes of TLS."""
    match kind:
        case "http":
            return len(data) <= LONGEST_LINE and b"\n" not in data.lstrip(b"\r\n")
        case "tls":
            return len(data) < TLS_TELLING
    return kind == "undecided" and bool(data)


@once_a_day
def tell_unvouched(name: str) -> None:
    """To the log, for each name: a client only says that the handshake failed."""
    message = "clients will refuse the certificate: %r is not among the hosts that they take one of sigward's CA for. %s"
    logger.warning(message, name, RENEW)


@once_a_day
def tell_refused(host: str, port: int, why: str) -> None:
    """To the log, for each destination: a client that is past CONNECT only sees its connection end."""
    logger.warning("a connection to %s:%d that is not HTTP is refused: %s", host, port, why)


class Tunnels:
    """Comes before mitmproxy's own decisions: what is not intercepted passes untouched, but never to a local address."""

    def __init__(self, engine: _core.Engine) -> None:
        self.engine = engine

    def next_layer(self, next_layer: layer.NextLayer) -> None:
        """After CONNECT, whatever is not HTTP for an intercepted host is bytes, or is refused."""
        context = next_layer.context
        data = next_layer.data_client()
        kind = _core.first_bytes(data)
        if is_inside_connect(context) and (address := context.server.address) is not None:
            what = self.engine.handling(*address[:2], "other" if kind == "other" else "unknown")
            if what[0] != "intercept":
                self.refuse(context, what)
                next_layer.layer = TCPLayer(context, ignore=True)
                return
        if is_undecided(kind, data):
            # mitmproxy would take what it cannot tell yet for raw bytes. It asks again when more has come.
            raise AddonHalt

    def refuse(self, context: Context, what: tuple[str, str, str]) -> None:
        """Where it may not pass, a connection gets no address, so that it leads nowhere."""
        if what[0] == "refuse" and (address := context.server.address) is not None:
            tell_refused(*address[:2], what[2])
            context.server.address = None

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        """TLS inside an intercepted CONNECT, unless its SNI names another host than CONNECT did, or it is for another protocol."""
        address, hello = data.context.server.address, data.client_hello
        if not is_inside_connect(data.context):
            if hello.sni is not None and not self.engine.vouches_for(hello.sni):
                tell_unvouched(hello.sni)
            return
        if address is None:
            data.ignore_connection = True
            return
        what = self.engine.handling(*address[:2], "tls", hello.sni, list(hello.alpn_protocols))
        data.ignore_connection = what[0] != "intercept"
        self.refuse(data.context, what)

    async def http_connect(self, flow: http.HTTPFlow) -> None:
        """Refuses a tunnel to a local address while the client can still be told."""
        host, port = flow.request.host, flow.request.port
        if why := self.engine.came_round(flow.request.headers.fields):
            flow.response = refusal(508, "loop", why)
            return
        if _core.normal_host(host) is None:
            flow.response = refusal(400, "bad-target", f"CONNECT names {host!r}, which is no host.")
            return
        what, slug, why = self.engine.handling(host, port, "unknown")
        if what == "intercept":
            if refused := self.engine.refuses_tunnel(host):
                flow.response = refusal(*refused)
            return
        if what == "refuse":
            flow.response = refusal(403, slug, why)
            return
        try:
            address = await self.allowed_address(host, port)
            if why := self.engine.leads_back(address, port):
                flow.response = refusal(508, "loop", why)
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
        # Whatever protocol it is taken for: HTTP goes through the engine, all else is a tunnel.
        what, _, why = self.engine.handling(*address[:2], "other")
        if what == "refuse":
            data.server.error = why
            return
        try:
            data.server.address = (await self.allowed_address(address[0], address[1]), address[1])
        except (OSError, ValueError) as error:
            data.server.error = str(error)
            return
        data.server.error = self.engine.leads_back(*data.server.address)
        self.engine.make_room(False)

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
        """Adopts the HTTP and TLS layers that mitmproxy has just made."""
        adopt_tls(next_layer)
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

    def client_connected(self, client: connection.Client) -> None:
        """It has so long until HTTP begins."""
        # The next client, and this one's upstream, shall find a descriptor: the event loop tells nobody when there is none.
        self.bridge.engine.make_room(True)
        self.bridge.connected(client)

    def http_connected(self, flow: http.HTTPFlow) -> None:
        """The same once more, inside a tunnel that is looked into."""
        if self.bridge.engine.handling(flow.request.host, flow.request.port, "unknown")[0] == "intercept":
            self.bridge.expect(flow.client_conn)

    def client_disconnected(self, client: connection.Client) -> None:
        """Ends what is left of a client's jobs."""
        self.bridge.opened(client)
        self.bridge.client_gone(self.bridge.handlers(client.id))
