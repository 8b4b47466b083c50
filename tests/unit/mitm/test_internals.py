"""What `internals` relies on in mitmproxy's private classes: a new minor version that changes it fails here first, by name."""

import inspect
from importlib.metadata import version

import h11
import pytest
from h11._receivebuffer import ReceiveBuffer
from mitmproxy import http
from mitmproxy.addonmanager import AddonManager
from mitmproxy.proxy import events, layer
from mitmproxy.proxy.layers import http as http_layers
from mitmproxy.proxy.layers.http import _base, _events, _http1
from mitmproxy.proxy.server import ConnectionHandler
from mitmproxy.test import taddons, tflow

from sigward import _core
from sigward.mitm.addon import is_undecided
from sigward.mitm.front import EngineAddonManager, listen_spec, parse_upstream, split_listen
from sigward.mitm.heads import ChunkReader
from sigward.mitm.internals import EngineHttpLayer, framed
from sigward.mitm.refusals import refuse_flow


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_mitmproxy_is_of_the_pinned_minor_version() -> None:
    assert version("mitmproxy").startswith("12.2.")


def test_the_http_layer() -> None:
    assert parameters(http_layers.HttpLayer.get_connection) == ["self", "event", "reuse"]
    assert parameters(http_layers.HttpLayer.event_to_child) == ["self", "child", "event"]
    assert parameters(http_layers.HttpLayer.__init__) == ["self", "context", "mode"]
    source = inspect.getsource(http_layers.HttpLayer)
    for relied_on in ("self.connections.setdefault(self.context.client", "self.command_sources", "self.streams: ", "self.connections = {}"):
        assert relied_on in source or relied_on.replace(": ", " = ") in source, relied_on
    assert issubclass(EngineHttpLayer, http_layers.HttpLayer)
    # Its class is swapped, so it must add no state of its own in __init__.
    assert "__init__" not in vars(EngineHttpLayer)


def test_connections_and_their_events() -> None:
    assert parameters(_base.HttpConnection.__init__) == ["self", "context", "conn"]
    assert parameters(_base.ReceiveHttp.__init__) == ["self", "event"]
    assert parameters(_events.RequestHeaders) == ["stream_id", "request", "end_stream", "replay_flow"]
    assert parameters(_events.ResponseHeaders) == ["stream_id", "response", "end_stream"]
    assert parameters(_events.ResponseData) == ["stream_id", "data"]
    assert parameters(_events.ResponseProtocolError) == ["stream_id", "message", "code"]
    assert parameters(http_layers.GetHttpConnectionCompleted) == ["command", "reply"]
    assert hasattr(http_layers.GetHttpConnection, "connection_spec_matches")
    assert parameters(events.ConnectionEvent) == ["connection"]


def test_the_http1_server() -> None:
    for name in ("read_headers", "read_body", "send", "done"):
        assert hasattr(_http1.Http1Server, name), name
    assert "raise NotImplementedError" in inspect.getsource(_http1.Http1Connection.read_body), "trailers may be served: drop ChunkReader"
    assert "protect against header size DoS" in inspect.getsource(_http1.Http1Server.read_headers), "there may be a limit now: drop ours"
    assert "headers" in parameters(h11.EndOfMessage.__init__)


def test_the_connection_handler() -> None:
    assert parameters(ConnectionHandler.server_event) == ["self", "event"]
    assert parameters(ConnectionHandler.drain_writers) == ["self"]
    source = inspect.getsource(ConnectionHandler.__init__)
    assert "self._drain_lock" in source
    assert "self.transports" in source
    assert "await self.drain_writers()" in inspect.getsource(ConnectionHandler.handle_connection)


def test_next_layer_carries_its_context() -> None:
    assert "context" in parameters(layer.NextLayer.__init__)


def test_the_addon_manager() -> None:
    for name in ("trigger_event", "register", "remove", "_iter_hooks"):
        assert hasattr(AddonManager, name), name
    assert "self.register(i)" in inspect.getsource(AddonManager.add)


async def test_hooks_of_addons_that_come_and_go_are_called() -> None:
    class Count:
        def __init__(self) -> None:
            self.calls = 0

        def request(self, _flow: http.HTTPFlow) -> None:
            self.calls += 1

    from mitmproxy.proxy.layers.http import HttpRequestHook

    with taddons.context() as context:
        manager = EngineAddonManager(context.master)
        first, second = Count(), type("Second", (Count,), {})()
        manager.add(first)
        await manager.trigger_event(HttpRequestHook(tflow.tflow()))
        manager.add(second)
        await manager.trigger_event(HttpRequestHook(tflow.tflow()))
        manager.remove(first)
        await manager.trigger_event(HttpRequestHook(tflow.tflow()))
    assert (first.calls, second.calls) == (2, 2)


def test_a_refused_flow_is_answered() -> None:
    flow = tflow.tflow()
    refuse_flow(flow, "It failed.")
    assert flow.response is not None
    assert (flow.response.status_code, flow.response.headers["x-sigward-error"]) == (500, "hook-failed")


def test_framing_of_answers() -> None:
    get, head = tflow.tflow().request, tflow.tflow(req=http.Request.make("HEAD", "http://a.test/")).request
    old = http.Request.make("GET", "http://a.test/")
    old.http_version = "HTTP/1.0"
    length = (b"content-length", b"5")
    assert framed((length,), get, 200, None) == (length,)
    assert framed((), get, 200, 5) == (length,)
    assert framed((), get, 200, None) == ((b"transfer-encoding", b"chunked"),)
    assert framed((), old, 200, None) == ()
    for request, status in ((head, 200), (get, 204), (get, 304), (get, 101)):
        assert framed((), request, status, None) == ()


def test_the_chunk_reader_keeps_trailers() -> None:
    reader, buffer = ChunkReader(), ReceiveBuffer()
    buffer += b"2\r\nab\r\n0\r\nx-sum: 1\r\n\r\n"
    assert reader(buffer).data == b"ab"
    event = reader(buffer)
    assert isinstance(event, h11.EndOfMessage)
    assert (event.headers.raw_items(), reader.trailers) == ([], [(b"x-sum", b"1")])


def test_addresses() -> None:
    assert split_listen("[::1]:8080") == ("::1", 8080)
    assert listen_spec("127.0.0.1:0") == "127.0.0.1:0"
    assert parse_upstream("https://a.test") == ("https", "a.test", 443)
    assert parse_upstream("http://[::1]:8080/") == ("http", "::1", 8080)
    assert parse_upstream("https://[::1]") == ("https", "::1", 443)


def test_first_bytes_that_tell_nothing_yet() -> None:
    for data in (b"\x16", b"\x16\x03", b"P", b"POST", b"POST / HTTP/1.1\r"):
        assert is_undecided(_core.first_bytes(data), data), data
    for data in (b"", b"\x16\x03\x01", b"POST / HTTP/1.1\r\n", b"SSH-2.0\r\n", b"\x00\x00\x00", b"x" * 65537):
        assert not is_undecided(_core.first_bytes(data), data), data


def test_recognise_from_python() -> None:
    found = _core.recognise("B.S3.eu-west-1.amazonaws.com.")
    assert found is not None
    assert (found.signing_name, found.region, found.partition, found.style, found.signed) == ("s3", "eu-west-1", "aws", "s3", True)
    assert _core.recognise("evil-amazonaws.com") is None


def test_a_closed_engine_takes_no_request() -> None:
    engine = _core.Engine('{"tls": {"system_roots": true}}')
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(_core.ENTRY_REVERSE, b"GET", b"https", "sqs.us-east-1.amazonaws.com", 443, b"/", [], b"", "")
