"""What the bounds, the streams and the hooks of `internals` rely on in mitmproxy, h2 and asyncio. See also `test_internals.py`."""

import asyncio
import inspect
import typing

import h2.config
import h2.connection
import h2.exceptions
import h2.frame_buffer
import pytest
from mitmproxy import flow
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.tlsconfig import alpn_select_callback
from mitmproxy.options import Options
from mitmproxy.proxy import events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http as http_layers
from mitmproxy.proxy.layers import tls
from mitmproxy.proxy.layers.http import _events, _hooks, _http1, _http2, _http_h2
from mitmproxy.proxy.mode_servers import AsyncioServerInstance
from mitmproxy.proxy.server import ConnectionHandler, ConnectionIO
from mitmproxy.test import tflow

from sigward.mitm import floods, internals


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def source(of: object) -> str:
    return inspect.getsource(of)  # type: ignore[arg-type]


# ---------------------------------------------------------------- streams


def test_a_stream_is_made_and_started_as_ours_is() -> None:
    assert parameters(http_layers.HttpLayer.make_stream) == ["self", "stream_id"]
    assert parameters(http_layers.HttpStream.__init__) == ["self", "context", "stream_id"]
    assert "self.streams[stream_id] = HttpStream(ctx, stream_id)" in source(http_layers.HttpLayer.make_stream)


def test_what_a_stream_does_with_a_request_that_streams() -> None:
    """Each of these is overridden, or called with these arguments."""
    stream = http_layers.HttpStream
    for name, expected in {
        "start_request_stream": ["self"],
        "state_stream_request_body": ["self", "event"],
        "send_response": ["self", "already_streamed"],
        "check_killed": ["self", "emit_error_hook"],
        "flow_done": ["self"],
        "state_done": ["self", "_"],
        "state_errored": ["self", "_"],
        "state_wait_for_response_headers": ["self", "event"],
    }.items():
        assert parameters(getattr(stream, name)) == expected, name
    assert "raise NotImplementedError" in source(stream.start_request_stream), "it may answer by itself now: drop EngineHttpStream"
    ended = source(stream.state_stream_request_body)
    assert ended.index("HttpRequestHook") < ended.index("RequestTrailers(self.stream_id") < ended.index("SendHttp(event")
    assert parameters(http_layers.SendHttp) == ["event", "connection"]
    assert parameters(_hooks.HttpResponseHeadersHook) == ["flow"]


def test_the_states_of_a_stream_are_its_methods() -> None:
    """`busy` and `stream` compare them; a layer's state is a bound method."""
    context = Context(tflow.tclient_conn(), Options())
    stream = internals.EngineHttpStream(context, 1)
    for name in ("client_state", "server_state"):
        assert getattr(stream, name) == stream.state_uninitialized


def test_killing_a_flow_says_so() -> None:
    killed = tflow.tflow()
    killed.kill()
    assert killed.error is not None
    assert killed.error.msg == flow.Error.KILLED_MESSAGE


def test_the_codes_that_say_how_a_request_ended() -> None:
    assert {"CANCEL", "PASSTHROUGH_CLOSE", "CLIENT_DISCONNECTED", "GENERIC_SERVER_ERROR"} <= set(_events.ErrorCode.__members__)
    assert parameters(_events.RequestProtocolError) == ["stream_id", "message", "code"]
    assert "PASSTHROUGH_CLOSE" in source(http_layers.HttpStream.passthrough)


# ---------------------------------------------------------------- HTTP/1


def test_what_an_http1_client_sends_ahead_is_kept() -> None:
    assert parameters(_http1.Http1Connection.wait) == ["self", "event"]
    assert "self.state = self.wait" in source(_http1.Http1Server.mark_done)
    assert "self.buf += event.data" in source(_http1.Http1Connection._handle_event)


# ---------------------------------------------------------------- HTTP/2


def test_an_http2_server_uses_the_connection_it_is_given() -> None:
    assert parameters(_http2.Http2Server.__init__) == ["self", "context"]
    assert isinstance(_http2.Http2Server.h2_conf, h2.config.H2Configuration)
    assert "self.h2_conn = BufferedH2Connection(self.h2_conf)" in source(_http2.Http2Connection.__init__)


def test_received_data_is_acknowledged_after_it_was_passed_on() -> None:
    """`hold` is called while it is passed on, and must come first."""
    handle = source(_http2.Http2Connection.handle_h2_event)
    assert handle.index("ReceiveHttp(self.ReceiveData(") < handle.index("self.h2_conn.acknowledge_received_data(")
    expected = ["self", "acknowledged_size", "stream_id"]
    assert parameters(h2.connection.H2Connection.acknowledge_received_data) == expected


def test_what_waits_for_a_window_is_in_the_stream_buffers() -> None:
    assert _http_h2.SendH2Data._fields == ("data", "end_stream")
    assert parameters(_http_h2.BufferedH2Connection.stream_window_updated) == ["self", "stream_id"]
    assert "self.stream_window_updated(stream_id)" in source(_http_h2.BufferedH2Connection.connection_window_updated)
    assert "self.connection_window_updated()" in source(_http_h2.BufferedH2Connection.receive_data)


def connected() -> tuple[h2.connection.H2Connection, internals.EngineH2Connection]:
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    server = internals.EngineH2Connection(h2.config.H2Configuration(client_side=False))
    client.initiate_connection()
    server.initiate_connection()  # type: ignore[no-untyped-call]
    exchange(client, server)
    client.send_headers(1, [(":method", "PUT"), (":scheme", "https"), (":authority", "a.test"), (":path", "/")])
    exchange(client, server)
    return client, server


def exchange(one: h2.connection.H2Connection, other: h2.connection.H2Connection) -> None:
    if sent := one.data_to_send():
        other.receive_data(sent)
    if answer := other.data_to_send():
        one.receive_data(answer)


async def test_the_window_of_a_stream_is_bounded_and_can_be_held() -> None:
    client, server = connected()
    assert client.local_flow_control_window(1) == internals.STREAM_WINDOW
    server.hold(1)
    while window := min(client.local_flow_control_window(1), 16384):
        client.send_data(1, b"x" * window)
        exchange(client, server)
        server.acknowledge_received_data(window, 1)
        exchange(client, server)
    assert server.release(1)
    client.receive_data(server.data_to_send())
    assert client.local_flow_control_window(1) == internals.STREAM_WINDOW
    assert not server.release(1), "there is nothing left to grant"


async def test_what_is_taken_is_granted_again_in_small_parts() -> None:
    """libcurl 7.88 may miss one grant, and waits for the next: what it still has under way must bring one."""
    client, server = connected()
    grants = []
    for _ in range(3 * internals.STREAM_WINDOW // 16384):
        before = client.streams[1].outbound_flow_control_window
        client.send_data(1, b"x" * 16384)
        exchange(client, server)
        server.acknowledge_received_data(16384, 1)
        exchange(server, client)
        grants.append(client.streams[1].outbound_flow_control_window > before - 16384)
    assert grants.count(True) == 3 * internals.STREAM_WINDOW // internals.GRANT
    assert client.streams[1].outbound_flow_control_window == internals.STREAM_WINDOW
    client.end_stream(1)
    exchange(client, server)
    server.acknowledge_received_data(0, 1)
    assert not server.data_to_send(), "nothing is granted to a request that has come to its end"


async def test_everything_is_granted_before_an_early_answer() -> None:
    client, server = connected()
    assert server.hold(1)
    server.grant_all(1)
    server.send_headers(1, [(":status", "403")])
    client.receive_data(server.data_to_send())
    assert client.streams[1].outbound_flow_control_window == internals.LARGEST_WINDOW
    assert not server.hold(1), "nothing is left to hold back"
    # Not for a request that has come to its end.
    client.send_headers(3, [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/")], end_stream=True)
    exchange(client, server)
    server.grant_all(3)
    assert not server.data_to_send()


async def test_what_is_buffered_is_counted_and_waited_for() -> None:
    client, server = connected()
    server.send_headers(1, [(":status", "200")])
    server.send_data(1, b"x" * 100_000)
    exchange(server, client)
    assert server.buffered(1) == 100_000 - 65_535
    waiting = asyncio.create_task(server.flushed(1, 0))
    await asyncio.sleep(0)
    assert not waiting.done()
    client.increment_flow_control_window(100_000)
    exchange(client, server)
    await asyncio.sleep(0)
    assert not waiting.done(), "the stream's own window is still shut"
    client.increment_flow_control_window(100_000, 1)
    exchange(client, server)
    await asyncio.wait_for(waiting, 10)
    assert server.buffered(1) == 0


def test_frames_come_in_and_go_out_one_way() -> None:
    """The ledger counts there. What a frame is answered with goes out from within `_receive_frame`."""
    connection = h2.connection.H2Connection
    assert parameters(connection._receive_frame) == ["self", "frame"]
    assert parameters(connection._prepare_for_sending) == ["self", "frames"]
    assert "self._prepare_for_sending(frames)" in source(connection._receive_frame)
    assert "self._receive_frame(frame)" in source(connection.receive_data)
    assert "self._terminate_connection(e.error_code)" in source(connection.receive_data), "what is raised within it is said by its code"
    assert parameters(h2.frame_buffer.FrameBuffer._update_header_buffer) == ["self", "f"]
    assert set(vars(h2.frame_buffer.FrameBuffer(server=True))) >= {"_data", "_headers_buffer", "_preamble_len", "max_frame_size"}
    assert h2.frame_buffer.CONTINUATION_BACKLOG == internals.CONTINUATIONS, "at this number it says PROTOCOL_ERROR"


def test_how_an_http2_connection_ends() -> None:
    assert parameters(_http2.Http2Connection.protocol_error) == ["self", "message", "error_code"]
    assert parameters(_http2.Http2Connection.close_connection) == ["self", "msg"]
    assert "isinstance(event, h2.exceptions.ProtocolError)" in source(_http2.Http2Connection.handle_h2_event)
    assert "self._handle_event = self.done" in source(_http2.Http2Connection.close_connection)


async def test_frames_beside_requests_use_up_an_allowance() -> None:
    client, server = connected()
    for _ in range(3 * int(floods.FRAMES)):
        client.ping(b"sigward!")
    with pytest.raises(h2.exceptions.DenialOfServiceError):
        server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    assert client.state_machine.state is h2.connection.ConnectionState.CLOSED


async def test_what_is_reset_by_the_bytes_that_made_it_never_was() -> None:
    client, server = connected()
    head = [(":method", "POST"), (":scheme", "https"), (":authority", "a.test"), (":path", "/")]
    window = server.inbound_flow_control_window
    for number in (3, 5):
        client.send_headers(number, head)
        client.send_data(number, b"x" * 10_000)
    client.reset_stream(3)
    events = server.receive_data(client.data_to_send())
    assert {getattr(event, "stream_id", 5) for event in events} == {5}
    assert [type(event).__name__ for event in events] == ["RequestReceived", "DataReceived"]
    server.acknowledge_received_data(10_000, 5)
    assert server.inbound_flow_control_window == window - 20_000, "both are accounted for, and announced when it is worth a frame"


# ---------------------------------------------------------------- the next layer


def test_mitmproxy_takes_half_a_request_line_for_raw_bytes() -> None:
    decide = source(NextLayer._next_layer)
    assert "len(data_client) < 3" in decide, "it may wait by itself now: drop is_undecided"
    assert 'data_client.find(b" ") > data_client.find(b"\\n")' in decide, "it may wait by itself now: drop is_undecided"


# ---------------------------------------------------------------- the handler


def test_a_transport_is_a_task_and_a_writer() -> None:
    assert list(typing.get_type_hints(ConnectionIO)) == ["handler", "reader", "writer"]
    ended = source(ConnectionHandler.handle_client)
    assert ended.index("ClientDisconnectedHook") < ended.index("closing transports"), "close_socket runs in this hook"
    assert "handler.cancel(" in source(ConnectionHandler.close_connection)


def test_a_client_s_connection_ends_by_its_writer() -> None:
    """`linger` is in its way; what has closed its side waits to be cancelled."""
    ended = source(ConnectionHandler.handle_connection)
    assert ended.index("CAN_READ") < ended.index("ConnectionClosed(connection)") < ended.index("asyncio.Event().wait()")
    assert "writer.close()" in ended[ended.index("asyncio.Event().wait()") :]


def test_timers_come_back_to_their_layer() -> None:
    assert "isinstance(command, commands.RequestWakeup)" in source(http_layers.HttpLayer.event_to_child)
    assert "self.command_sources.pop(event.command)" in source(http_layers.HttpLayer._handle_event)
    assert parameters(events.Wakeup) == ["command"]


def test_tls_of_clients() -> None:
    assert parameters(tls.ClientTLSLayer.send_close) == ["self", "command"]
    assert "shutdown" not in source(tls.TLSLayer.send_close).replace("# We should probably shutdown", ""), "it may say close_notify now"
    # Its class is swapped, so it must add no state of its own in __init__.
    assert "__init__" not in vars(internals.EngineClientTls)
    assert 'http2 = app_data["http2"]' in source(alpn_select_callback)


def test_commands_for_a_connection_that_is_gone_are_passed_over() -> None:
    """The fake server is never in `transports`, and mitmproxy may want to close it."""
    assert "command.connection not in self.transports" in source(ConnectionHandler.server_event)


def test_the_http_layer_starts_its_client_connection_and_nothing_else() -> None:
    """`EngineHttpLayer` does this itself, for the modes that sigward has."""
    handle = source(http_layers.HttpLayer._handle_event)
    start = handle[handle.index("events.Start") : handle.index("events.CommandCompleted")]
    assert start.count("yield") == 1
    assert "self.event_to_child(self.connections[self.context.client], event)" in start
    assert "if self.mode is HTTPMode.upstream:" in start


def test_events_of_a_connection_are_routed_by_it() -> None:
    assert "handler = self.connections[event.connection]" in source(http_layers.HttpLayer._handle_event)
    assert issubclass(internals.EngineEvent, events.ConnectionEvent)


@pytest.mark.parametrize(
    "option", ["tcp_timeout", "stream_large_bodies", "store_streamed_bodies", "connection_strategy", "keep_host_header"]
)
def test_the_options_that_the_front_sets(option: str) -> None:
    from mitmproxy.addons.proxyserver import Proxyserver
    from mitmproxy.test import taddons

    with taddons.context(Proxyserver()) as context:
        assert option in context.options


def test_where_a_front_listens() -> None:
    """`take_in` looks at the sockets of these."""
    assert "self._servers = await self.listen(host, port)" in source(AsyncioServerInstance._start)
    assert "s.sockets" in source(AsyncioServerInstance.listen_addrs.fget)
