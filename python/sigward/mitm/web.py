"""mitmweb in sigward's own process: its pages and their server, with a bounded store of redacted copies of flows.

The one file that touches what mitmproxy keeps for mitmweb (`mitmproxy.tools.web`); contract tests hold it. It is imported for
`sigward web` alone. The pages show, and change nothing: options, commands and replays are refused, as they would open listeners or
send what nobody has signed.
"""

import logging
import re
import socket
from collections.abc import Sequence
from typing import Any, cast

import tornado.httpserver
import tornado.httputil
import tornado.netutil
from mitmproxy import contentviews, log
from mitmproxy.addons.eventstore import EventStore
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.view import View
from mitmproxy.flow import Flow
from mitmproxy.http import HTTPFlow
from mitmproxy.options import Options
from mitmproxy.tcp import TCPFlow
from mitmproxy.tools.web import app
from mitmproxy.tools.web.webaddons import WebAddon, WebAuth

from sigward import _core
from sigward.mitm.contentview import SigwardContentview
from sigward.mitm.front import EngineMaster
from sigward.mitm.shown import NOT_KEPT, Shown
from sigward.plan import Web

COLUMNS = ["tls", "comment", "path", "status", "size", "time"]
"""Of the list of flows; the comment tells which call it is."""

STYLE = b"<style>.flow-table .col-comment.col-comment {width: 320px; text-align: left}</style>"
"""mitmweb keeps 150 pixels for a comment, on the right."""

LOG_LINES = 1000
"""Lines of the log that the pages show."""

CHANGES = re.compile(r"POST /(clear)?|(PUT|DELETE) /flows/[0-9a-f-]+")
"""What a page may ask for beside reading: to log in, to clear the list, to mark, comment or remove a copy."""


OPENED = 200
"""The status of a CONNECT whose tunnel is open."""


class Store(View):
    """mitmproxy's list of flows, but of copies, and no more of them than `web` says: the oldest leave first."""

    def __init__(self, shown: Shown, web: Web) -> None:
        super().__init__()
        self._shown = shown
        self._web = web
        self._sizes: dict[str, int] = {}
        self._size = 0

    def add(self, flows: Sequence[Flow]) -> None:
        """Takes in copies of flows that are not there yet."""
        for flow in flows:
            if self.get_by_id(flow.id) is None and not is_tunnel(flow):
                shown = self._shown.copy(flow)
                super().add([shown])
                self._measure(shown)
        self._prune()

    def update(self, flows: Sequence[Flow]) -> None:
        """Brings copies up to date; takes in what is not there: a hook that failed may have kept its beginning away."""
        for flow in flows:
            shown = self.get_by_id(flow.id)
            if shown is None:
                self.add([flow])
                continue
            if shown is not flow:
                self._shown.refresh(shown, flow)
                self._measure(shown)
            super().update([shown])
        self._prune()

    def remove(self, flows: Sequence[Flow]) -> None:
        """Forgets copies."""
        for flow in flows:
            self._size -= self._sizes.pop(flow.id, 0)
        super().remove(flows)

    def clear(self) -> None:
        """Forgets all."""
        self._sizes.clear()
        self._size = 0
        super().clear()

    def responseheaders(self, flow: HTTPFlow) -> None:
        """mitmproxy's hook: what is decided is shown before the answer's end."""
        self.update([flow])

    def http_connect_error(self, flow: HTTPFlow) -> None:
        """mitmproxy's hook: tunnels that are refused are shown, too."""
        self.update([flow])

    def _measure(self, shown: Flow) -> None:
        size = body_bytes(shown)
        self._size += size - self._sizes.get(shown.id, 0)
        self._sizes[shown.id] = size

    def _prune(self) -> None:
        while self._sizes and (len(self._sizes) > self._web.flows or self._size > self._web.bodies):
            oldest = self.get_by_id(next(iter(self._sizes)))
            assert oldest is not None
            self.remove([oldest])


def is_tunnel(flow: Flow) -> bool:
    """True for a CONNECT that is not refused: what goes through it is shown itself, or nobody's business."""
    if not isinstance(flow, HTTPFlow) or flow.request.method != "CONNECT":
        return False
    return flow.response is None or flow.response.status_code == OPENED


def body_bytes(flow: Flow) -> int:
    """What a flow holds of bodies and messages."""
    if isinstance(flow, TCPFlow):
        return sum(len(message.content) for message in flow.messages)
    if not isinstance(flow, HTTPFlow):
        return 0
    bodies = [message.raw_content or b"" for message in (flow.request, flow.response) if message]
    return sum(len(body) for body in bodies if body != NOT_KEPT) + sum(
        len(message.content) for message in (flow.websocket.messages if flow.websocket else ())
    )


class Index(app.IndexHandler):
    """mitmweb's page, with room for comments."""

    def get(self) -> None:
        """Tornado's hook."""
        self.write(self.render_string("../index.html").replace(b"</head>", STYLE + b"</head>"))

    post = get


class Refused(app.RequestHandler):
    """Answers what would change more than the list."""

    def prepare(self) -> None:
        """Tornado's hook, before any method."""
        raise app.APIError(403, "sigward's pages show what happens; they change no options, run no commands and send nothing.")


class ReadOnly(app.Application):
    """mitmweb's pages, without what would change anything but the list."""

    def __init__(self, master: "WebMaster") -> None:
        # It asks for no more than `WebMaster` has.
        super().__init__(cast("Any", master), debug=False)
        self.add_handlers(".*", [("/", Index)])

    def find_handler(self, request: tornado.httputil.HTTPServerRequest, **kwargs: Any) -> Any:
        """Tornado's hook: who answers a request."""
        if request.method not in ("GET", "HEAD", "OPTIONS") and not CHANGES.fullmatch(f"{request.method} {request.path}"):
            return self.get_handler_delegate(request, Refused)
        return super().find_handler(request, **kwargs)


class WebMaster(EngineMaster):
    """sigward's master, with what mitmweb's pages ask a master for."""

    def __init__(self, options: Options, server: Proxyserver, engine: _core.Engine, web: Web) -> None:
        super().__init__(options)
        self.web = web
        self.proxyserver = server
        self.view = Store(Shown(engine, web.bodies), web)
        self.events = EventStore(LOG_LINES)
        self._auth = WebAuth()
        # What all other addons have changed is what is shown.
        self.watchers = (WebAddon(), self._auth, self.view, self.events)
        self._sockets: list[socket.socket] = []
        self._http: tornado.httpserver.HTTPServer | None = None
        self.view.sig_view_add.connect(self._added)
        self.view.sig_view_update.connect(self._updated)
        self.view.sig_view_remove.connect(self._removed)
        self.view.sig_view_refresh.connect(app.ClientConnection.broadcast_flow_reset)
        self.events.sig_add.connect(self._logged)
        self.events.sig_refresh.connect(self._log_cleared)
        # They would tell of every request to the pages, and of the token in it.
        logging.getLogger("tornado.access").setLevel(logging.ERROR)
        contentviews.add(SigwardContentview)

    @property
    def web_url(self) -> str | None:
        return str(self._auth.web_url)

    def bind(self) -> None:
        """Takes the pages' address. Raises OSError."""
        self._sockets = tornado.netutil.bind_sockets(self.web.port, self.web.host)
        self.options.update(
            web_host=self.web.host,
            web_port=self._sockets[0].getsockname()[1],
            web_password=self.web.password or "",
            web_open_browser=self.web.open_browser,
            web_columns=COLUMNS,
        )

    async def running(self) -> None:
        """mitmproxy's hook: the listeners are bound."""
        self._http = tornado.httpserver.HTTPServer(ReadOnly(self))
        self._http.add_sockets(self._sockets)
        await super().running()

    async def done(self) -> None:
        """mitmproxy's hook: it ends."""
        for page in list(app.ClientConnection.connections):
            page.close()
        if self._http is not None:
            self._http.stop()
            await self._http.close_all_connections()
        await super().done()

    def _added(self, flow: Flow) -> None:
        app.ClientConnection.broadcast_flow("flows/add", flow)

    def _updated(self, flow: Flow) -> None:
        app.ClientConnection.broadcast_flow("flows/update", flow)

    def _removed(self, flow: Flow, index: int) -> None:
        app.ClientConnection.broadcast(type="flows/remove", payload=flow.id)

    def _logged(self, entry: log.LogEntry) -> None:
        app.ClientConnection.broadcast(type="events/add", payload=app.logentry_to_json(entry))

    def _log_cleared(self) -> None:
        app.ClientConnection.broadcast(type="events/reset")
