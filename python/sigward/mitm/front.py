"""The front as the command line sees it: starts, tells where it listens, drains."""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable
from typing import Any

from mitmproxy import exceptions, hooks, http, tcp
from mitmproxy.addonmanager import AddonManager
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy.server import ConnectionHandler
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import ClientHelloData
from mitmproxy.websocket import WebSocketData

from sigward import _core
from sigward.front import FrontError, FrontOptions, load_authority
from sigward.mitm.addon import Sign, Tunnels
from sigward.mitm.bridge import Bridge
from sigward.mitm.internals import drained, hang_up, say_goodbye, take_in
from sigward.mitm.leaves import Leaves
from sigward.mitm.refusals import refuse_flow

logger = logging.getLogger(__name__)

# Log lines of mitmproxy's that tell of every connection; ours tell what matters.
QUIET = ("mitmproxy.proxy.server", "mitmproxy.proxy.mode_servers")


CLIENT_IDLE = 3600
"""Seconds of silence after which a tunnel is closed, or a quiet WebSocket: mitmproxy's 600 are too few. Calls of Lambda's may last 900. Of
what is HTTP, `internals` and the engine's own time-outs end what hangs."""


CLOSING = 2.0
"""Seconds that clients' connections have to close when the front does."""


TAKING_IN = 2.0
"""Seconds that the listeners stay open, at most, for clients that had connected before the front drains."""


Handler = tuple[Any, Callable[..., Any]]


class EngineAddonManager(AddonManager):
    """mitmproxy's, but a hook that raises refuses what it was asked about instead of letting it go on.

    Which addons have which hook is looked up once: mitmproxy looks at every addon for every event of every request.
    """

    def __init__(self, master: Master) -> None:
        super().__init__(master)  # type: ignore[no-untyped-call]
        self._handlers: dict[str, list[Handler]] = {}

    def register(self, addon: Any) -> Any:
        self._handlers.clear()
        return super().register(addon)  # type: ignore[no-untyped-call]

    def remove(self, addon: Any) -> None:
        super().remove(addon)  # type: ignore[no-untyped-call]
        self._handlers.clear()

    async def trigger_event(self, event: hooks.Hook) -> None:
        handlers = self._handlers.get(event.name)
        if handlers is None:
            handlers = [found for addon in self.chain for found in self._iter_hooks(addon, event)]
            self._handlers[event.name] = handlers
        for addon, handler in handlers:
            try:
                result = handler(*event.args())
                if result is not None and inspect.isawaitable(result):
                    await result
            except exceptions.AddonHalt:
                return
            except Exception:
                name = getattr(addon, "name", type(addon).__name__)
                logger.exception("hook %s of addon %s failed", event.name, name)
                if refuse(event, name):
                    # No later addon turns it round.
                    return


def refuse(event: hooks.Hook, name: str) -> bool:
    """Refuses what a hook of the addon `name` failed on. False: there is nothing to refuse."""
    match event.args():
        case [http.HTTPFlow() as flow] if event.name in ("responseheaders", "response") or (
            # Upstream has answered before the whole request was sent.
            event.name == "request" and "sigward" in flow.metadata
        ):
            if flow.killable:
                flow.kill()
        case [http.HTTPFlow() as flow] if event.name in ("requestheaders", "request", "http_connect"):
            refuse_flow(flow, f"Hook {event.name} of addon {name} failed.")
        case [http.HTTPFlow(websocket=WebSocketData(messages=[*_, message]))] if event.name == "websocket_message":
            message.drop()
        case [tcp.TCPFlow(messages=[*_, message])] if event.name == "tcp_message":
            message.content = b""
        case [ServerConnectionHookData() as data] if event.name == "server_connect":
            data.server.error = f"hook server_connect of addon {name} failed"
        case [ClientHelloData() as data]:
            # Not looked into, so not signed; and without an address it leads nowhere.
            data.ignore_connection, data.context.server.address = True, None
        case _:
            return False
    return True


class EngineMaster(Master):
    """mitmproxy's master with the addons that sigward needs and no others: each costs time for every request.

    `watchers`: addons that come after all others.
    """

    watchers: tuple[object, ...] = ()

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.addons = EngineAddonManager(self)

    def bind(self) -> None:
        """Takes the address of its pages, if it has any. Raises OSError."""

    @property
    def web_url(self) -> str | None:
        """Where its pages are, with a token if no password opens them; None: it has none."""
        return None


def split_listen(listen: str) -> tuple[str, int]:
    """ "127.0.0.1:8080" and "[::1]:8080"."""
    host, _, port = listen.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def parse_upstream(upstream: str) -> tuple[str, str, int]:
    """(scheme, host, port) of "https://host[:port]"; settings have checked it."""
    scheme, _, rest = upstream.partition("://")
    host, colon, port = rest.rstrip("/").rpartition(":")
    if not colon or rest.endswith("]"):
        host, port = rest.rstrip("/"), "443" if scheme == "https" else "80"
    return scheme, host.removeprefix("[").removesuffix("]"), int(port)


class Front:
    """mitmproxy with sigward's engine behind it. One a process: mitmproxy keeps its master in a global."""

    def __init__(self, engine: _core.Engine, options: FrontOptions, on_refresh: Callable[[str], None]) -> None:
        self.engine = engine
        self.options = options
        self.bridge = Bridge(engine, self._handler, on_refresh)
        self._names: dict[str, str] = {}
        self._master: EngineMaster | None = None
        self._server: Proxyserver | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Binds every listener; they accept when it returns. Raises `FrontError`, `CaError`."""
        load_authority(self.engine, self.options.ca_dir, needed=not self.options.reverse)
        options, upstreams = self._mitmproxy_options()
        server = Proxyserver()
        master = self._new_master(options, server)
        ready = asyncio.Event()
        self._master, self._server = master, server
        # Other people's addons come before ours: what they change is what gets signed.
        master.addons.add(
            server,
            Tunnels(self.engine),
            NextLayer(),
            Leaves(self.engine),
            Sign(self.bridge, upstreams),
            *self.options.addons,
            *master.watchers,
            Ready(ready),
        )
        self._bind_pages(master)
        for name in QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
        options.update(
            connection_strategy="lazy",
            keep_host_header=True,
            stream_large_bodies=str(self.options.body_hold),
            store_streamed_bodies=False,
            upstream_cert=False,
            rawtcp=True,
            websocket=True,
            validate_inbound_headers=True,
            http3=False,
            tcp_timeout=CLIENT_IDLE,
        )
        self.bridge.start()
        self._running = asyncio.get_running_loop().create_task(master.run())
        waiting = asyncio.get_running_loop().create_task(ready.wait())
        done, _ = await asyncio.wait({self._running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        failures = [str(instance.last_exception) for instance in server.servers if instance.last_exception]
        if self._running in done or failures:
            await server.servers.update([])
            await self._stop()
            why = "; ".join(failures) or "mitmproxy ended"
            raise FrontError(
                f"cannot listen: {why}.",
                hint="Is the address in use? Choose another with --listen or --reverse; port 0 takes a free one.",
            )
        for host, port in self.addresses.values():
            self.engine.listens(host, port)

    def _new_master(self, options: Options, server: Proxyserver) -> EngineMaster:
        if self.options.web is None:
            return EngineMaster(options)
        from sigward.mitm.web import WebMaster

        return WebMaster(options, server, self.engine, self.options.web)

    def _bind_pages(self, master: EngineMaster) -> None:
        try:
            master.bind()
        except OSError as error:
            raise FrontError(f"web_port: cannot listen: {error}.", hint="Is the address in use? Choose another with --web-port.") from error

    @property
    def web_url(self) -> str | None:
        """Where mitmweb's pages are, with the token that opens them; None: there are none."""
        return self._master.web_url if self._master is not None else None

    def _mitmproxy_options(self) -> tuple[Options, dict[str, tuple[str, str, int] | None]]:
        modes: list[str] = []
        upstreams: dict[str, tuple[str, str, int] | None] = {}
        if self.options.forward is not None:
            modes.append(f"regular@{listen_spec(self.options.forward)}")
            self._names[modes[-1]] = "forward"
        for number, listener in enumerate(self.options.reverse):
            # The name is only there to tell listeners apart; nothing connects to it. `http` binds TCP alone.
            name = f"listener-{number}.invalid"
            upstreams[name] = None if listener.upstream is None else parse_upstream(listener.upstream)
            modes.append(f"reverse:http://{name}@{listen_spec(listener.listen)}")
            self._names[modes[-1]] = f"reverse:{number}"
        return Options(mode=modes, confdir=str(self.options.ca_dir)), upstreams

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Where each listener is bound: "forward", "reverse:0", … to host and port."""
        assert self._server is not None
        found: dict[str, tuple[str, int]] = {}
        for instance in self._server.servers:
            for address in instance.listen_addrs[:1]:
                found[self._names.get(instance.mode.full_spec, instance.mode.full_spec)] = (address[0], address[1])
        return found

    def _handler(self, client_id: str) -> ConnectionHandler | None:
        assert self._server is not None
        return self._server.connections.get(client_id)

    async def drain(self) -> None:
        """No new connections; what is under way may end within the grace; then all closes."""
        if self._server is None:
            return
        await take_in(self._server, min(TAKING_IN, self.options.grace))
        await self._server.servers.update([])
        self.bridge.draining = True
        try:
            async with asyncio.timeout(self.options.grace):
                # mitmproxy has no signal for the end of a flow.
                while self.bridge.busy():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                # What was answered is in the clients' hands, or at least the kernel's.
                for handler in list(self._server.connections.values()):
                    await drained(handler)
        except TimeoutError:
            logger.warning("%d requests did not end within the grace of %g s", len(self.bridge.pending), self.options.grace)
        await self._hang_up()
        await self._stop()

    async def _hang_up(self) -> None:
        """Ends the clients' connections, idle or not."""
        assert self._server is not None
        for handler in list(self._server.connections.values()):
            say_goodbye(handler, self.bridge.layers)
            hang_up(handler)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING):
                while self._server.connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)

    async def _stop(self) -> None:
        self.bridge.stop()
        if self._master is not None and self._running is not None:
            self._master.should_exit.set()
            await asyncio.wait({self._running}, timeout=5)

    async def wait_closed(self) -> None:
        """Returns when mitmproxy has ended, by itself or by `drain`."""
        if self._running is not None:
            await asyncio.wait({self._running})


class Ready:
    """Last in the chain: when it is told that mitmproxy runs, all others have been."""

    def __init__(self, ready: asyncio.Event) -> None:
        self._ready = ready

    def running(self) -> None:
        """mitmproxy's hook."""
        self._ready.set()


def listen_spec(listen: str) -> str:
    """mitmproxy's spelling of an address."""
    host, port = split_listen(listen)
    return f"{host}:{port}"
