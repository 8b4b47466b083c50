"""The store of `sigward web` and its bounds, and what `web` relies on in mitmproxy's own files for mitmweb."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mitmproxy.addons import view
from mitmproxy.http import Response
from mitmproxy.test import taddons, tflow
from mitmproxy.tools.web import app, master, web_columns, webaddons

from sigward import _core
from sigward.mitm import web
from sigward.mitm.shown import Shown
from sigward.mitm.web import COLUMNS, STYLE, Store, body_bytes
from sigward.plan import Web

FLOW_BODIES = len(b"content" + b"message")


@pytest.fixture
def engine() -> Iterator[_core.Engine]:
    engine = _core.Engine("{}")
    yield engine
    engine.close()


def store(engine: _core.Engine, flows: int = 100, bodies: int = 1 << 20) -> Store:
    return Store(Shown(engine, bodies), Web("127.0.0.1", 0, None, flows, bodies, False))


def test_the_oldest_flows_leave_first(engine: _core.Engine) -> None:
    kept = store(engine, flows=3)
    flows = [tflow.tflow(resp=True) for _ in range(5)]
    with taddons.context(kept):
        for flow in flows:
            kept.add([flow])
    assert [flow.id for flow in kept] == [flow.id for flow in flows[2:]]
    # A flow that has left does not come back as the oldest of all.
    assert kept.store_count() == 3


def test_bodies_are_bounded_whatever_their_number(engine: _core.Engine) -> None:
    kept = store(engine, bodies=2 * FLOW_BODIES)
    with taddons.context(kept):
        flows = [tflow.tflow(resp=True) for _ in range(4)]
        for flow in flows:
            kept.add([flow])
        assert [flow.id for flow in kept] == [flow.id for flow in flows[2:]]
        # What grows counts too: an answer that comes later.
        late = tflow.tflow()
        kept.add([late])
        late.response = Response.make(200, b"x" * FLOW_BODIES)
        kept.update([late])
        assert [flow.id for flow in kept] == [late.id]
        assert sum(body_bytes(flow) for flow in kept) <= 2 * FLOW_BODIES


def test_with_no_bytes_for_bodies_flows_are_kept_all_the_same(engine: _core.Engine) -> None:
    kept = store(engine, bodies=0)
    flow = tflow.tflow(resp=True)
    with taddons.context(kept):
        kept.add([flow])
    assert b"message" not in str(kept[0].get_state()).encode()
    assert kept.store_count() == 1


def test_what_is_removed_or_cleared_counts_no_more(engine: _core.Engine) -> None:
    kept = store(engine, bodies=3 * FLOW_BODIES)
    with taddons.context(kept):
        for _ in range(3):
            kept.add([tflow.tflow(resp=True)])
            kept.remove([kept[0]])
        for _ in range(3):
            kept.add([tflow.tflow(resp=True)])
        assert len(kept) == 3
        kept.clear()
        for _ in range(3):
            kept.add([tflow.tflow(resp=True)])
        assert len(kept) == 3


def test_copies_stand_in_the_store_and_are_brought_up_to_date(engine: _core.Engine) -> None:
    kept = store(engine)
    flow = tflow.tflow()
    with taddons.context(kept):
        kept.requestheaders(flow)
        copy = kept[0]
        assert copy is not flow
        flow.response = Response.make(403, headers={"x-sigward-error": "denied"})
        kept.responseheaders(flow)
        assert kept[0] is copy
        assert copy.comment == "denied"
        # As the pages do, with the copy itself: what a person has written stays.
        copy.comment = "look at this"
        kept.update([copy])
        assert copy.comment == "look at this"
        # One whose beginning no hook has told.
        unseen = tflow.tflow(resp=True)
        kept.response(unseen)
        assert [flow.id for flow in kept] == [flow.id, unseen.id]


def test_tunnels_are_shown_only_if_they_are_refused(engine: _core.Engine) -> None:
    kept = store(engine)
    opened, refused = tflow.tflow(), tflow.tflow()
    opened.request.method = refused.request.method = "CONNECT"
    with taddons.context(kept):
        for flow in (opened, refused):
            kept.requestheaders(flow)
        opened.response, refused.response = Response.make(200), Response.make(403, headers={"x-sigward-error": "forbidden-address"})
        for flow in (opened, refused):
            kept.response(flow)
    assert [flow.comment for flow in kept] == ["forbidden-address"]


# ---------------------------------------------------------------- what mitmproxy has for mitmweb


def source(of: object) -> str:
    return inspect.getsource(of)  # type: ignore[arg-type]


def test_what_the_pages_ask_a_master_for() -> None:
    """`WebMaster` has these and no others."""
    asked = set(re.findall(r"\bmaster\.(?!WebMaster)(\w+)", source(app)))
    assert asked == {"view", "events", "options", "commands", "addons", "proxyserver", "load_flow"}
    assert 'master.addons.get("webauth")' in source(app.Application)
    assert "ctx.master" in source(webaddons.WebAddon)
    assert "master.web_url" in source(webaddons.WebAddon)


def test_mitmweb_s_master_does_no_more_than_ours() -> None:
    """A signal that it connects, and ours does not, would leave the pages behind."""
    told = {line.split(".connect(")[0].strip() for line in source(master.WebMaster.__init__).splitlines() if ".connect(" in line}
    assert told == {
        "self.view.sig_view_add",
        "self.view.sig_view_remove",
        "self.view.sig_view_update",
        "self.view.sig_view_refresh",
        "self.events.sig_add",
        "self.events.sig_refresh",
        # These two never change while the pages are there.
        "self.options.changed",
        "self.proxyserver.servers.changed",
    }


def test_the_list_calls_what_the_store_overrides() -> None:
    for hook in ("requestheaders", "tcp_start"):
        assert "self.add([f])" in source(getattr(view.View, hook))
    for hook in ("response", "error", "tcp_message", "tcp_end"):
        assert "self.update([f])" in source(getattr(view.View, hook))
    assert not hasattr(view.View, "responseheaders")
    assert not hasattr(view.View, "http_connect_error")


def test_every_page_needs_the_token_by_itself() -> None:
    """`Index` and `Refused` are wrapped because of their class."""
    assert "__init_subclass__" in vars(app.AuthRequestHandler)
    for of_ours in (web.Index, web.Refused):
        assert issubclass(of_ours, app.AuthRequestHandler)
    assert issubclass(app.ClientConnection, app.AuthRequestHandler)


def test_the_columns_and_their_style_fit_mitmweb_s() -> None:
    assert set(COLUMNS) <= set(web_columns.AVAILABLE_WEB_COLUMNS)
    package = Path(app.__file__).parent
    styles = "".join(path.read_text() for path in (package / "static").glob("*.css"))
    assert ".col-comment{width:150px" in styles, "it may be wide enough now: drop Index"
    assert b".col-comment" in STYLE
    assert "</head>" in (package / "index.html").read_text()
