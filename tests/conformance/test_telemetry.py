"""Traces and metrics by OTLP: what a collector gets of a request, what the upstream is told of its trace, and what no request suffers."""

import asyncio
import itertools
import json
import re
import socket
from pathlib import Path
from typing import Any

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from sigward import _core
from tests.collector import Collector, plain
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_audit_log import OWN_ID
from tests.conformance.test_half_open import reset
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.conformance.test_retries import LIST, S500, answer, hang_up
from tests.support import KEY, SECRET, SECRETS, Received, Upstream, assert_no_secret, assert_signed, connected, counted

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"traceparent: 00-{TRACE}-{PARENT}-01", f"traceparent: 00-{TRACE}-{PARENT}-00"
PATIENCE = 20.0


@pytest.fixture
async def collector() -> Any:
    async with Collector() as running:
        yield running


def inside(outer: Span, inner: Span) -> bool:
    return outer.start_time_unix_nano <= inner.start_time_unix_nano <= inner.end_time_unix_nano <= outer.end_time_unix_nano


async def test_a_signed_request(start: Start, upstream: Upstream, collector: Collector) -> None:
    routes = [{"name": "queues", "host": HOST, "connect": f"127.0.0.1:{upstream.port}"}]
    otlp = collector.settings(headers={"x-key": "its-key"}, attributes={"service.name": "sidecar", "team": "a"})
    proxy = await start(upstream, otlp=otlp, routes=routes, token="a-token-that-must-not-leak")
    upstream.answers = [answer(200, b"{}", "x-amzn-RequestId: an-id")]
    await proxy.ask(request("POST", "/?x=secret", LIST, "Authorization: AWS4-HMAC-SHA256 secret", body=b"{}"))
    (root,) = await collector.requests(1)
    assert (root.name, root.parent_span_id, root.trace_state, root.status.code) == ("sqs/ListQueues", b"", "", Status.STATUS_CODE_UNSET)
    assert (len(root.trace_id), len(root.span_id)) == (16, 8)
    told = plain(root.attributes)
    assert told.pop("client.address") == "127.0.0.1"
    assert told == {
        "http.request.method": "POST",
        "url.scheme": "https",
        "url.path": "/",
        "server.address": HOST,
        "server.port": 443,
        "http.response.status_code": 200,
        "rpc.system": "aws-api",
        "rpc.service": "sqs",
        "rpc.method": "ListQueues",
        "aws.request_id": "an-id",
        "cloud.region": "us-east-1",
        "sigward.action": "sign",
        "sigward.identity": "default",
        "sigward.route": "queues",
    }
    (attempt,) = collector.below(root)
    assert (attempt.name, attempt.kind, attempt.status.code) == ("POST", Span.SPAN_KIND_CLIENT, Status.STATUS_CODE_UNSET)
    assert plain(attempt.attributes) == {
        "http.request.method": "POST",
        "server.address": HOST,
        "server.port": 443,
        "url.full": f"https://{HOST}/",
        "http.response.status_code": 200,
    }
    assert inside(root, attempt)
    (sent,) = collector.received
    assert (sent.method, sent.target, sent.get("content-type")) == ("POST", "/v1/traces", "application/x-protobuf")
    assert sent.get("x-key") == "its-key"
    resource = plain(collector.exported()[0].resource_spans[0].resource.attributes)
    assert (resource["service.name"], resource["team"]) == ("sidecar", "a")
    assert resource["service.version"]
    assert re.fullmatch("[0-9a-f]{32}", resource["service.instance.id"])
    assert_no_secret(sent.body.decode("latin-1"), "a span")
    assert not re.search(rf"secret|{KEY}|AWS4", sent.body.decode("latin-1"))
    # The upstream is told where in the trace it is; proxies on the way may change that, so it is not signed.
    (received,) = upstream.received
    assert received.get("traceparent") == f"00-{root.trace_id.hex()}-{root.span_id.hex()}-01"
    assert "traceparent" not in assert_signed(received, HOST, token="a-token-that-must-not-leak")["headers"]


async def test_a_client_s_trace_goes_on(start: Start, upstream: Upstream, collector: Collector) -> None:
    proxy = await start(upstream, otlp=collector.settings())
    await proxy.ask(request("GET", "/", SAMPLED, "tracestate: a=1", "X-Amzn-Trace-Id: Root=1-2-3"))
    (root,) = await collector.requests(1)
    assert (root.trace_id.hex(), root.parent_span_id.hex(), root.trace_state) == (TRACE, PARENT, "a=1")
    (received,) = upstream.received
    assert received.get("traceparent") == f"00-{TRACE}-{root.span_id.hex()}-01"
    assert (received.get("tracestate"), received.get("x-amzn-trace-id")) == ("a=1", "Root=1-2-3")


async def test_a_trace_context_that_cannot_be_read_begins_another(start: Start, upstream: Upstream, collector: Collector) -> None:
    proxy = await start(upstream, otlp=collector.settings())
    await proxy.ask(request("GET", "/", f"traceparent: 00-{TRACE}-nonsense-01", "tracestate: a=1"))
    (root,) = await collector.requests(1)
    assert root.trace_id.hex() != TRACE
    (received,) = upstream.received
    assert (received.get("traceparent"), received.get("tracestate")) == (f"00-{root.trace_id.hex()}-{root.span_id.hex()}-01", None)


async def test_off_nothing_is_changed(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream)
    await proxy.ask(request("GET", "/", SAMPLED, "tracestate: a=1"))
    await proxy.ask(request())
    told, untold = upstream.received
    assert (told.get("traceparent"), told.get("tracestate")) == (SAMPLED.partition(": ")[2], "a=1")
    assert untold.get("traceparent") is None


async def test_what_passes_is_traced_and_left_alone(start: Start, upstream: Upstream, collector: Collector) -> None:
    """A client's own signature may be over its headers."""
    proxy = await start(upstream, otlp=collector.settings())
    await proxy.ask(request("GET", "/key?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=abc&X-Amz-Expires=60", SAMPLED, host=BUCKET_HOST))
    (root,) = await collector.requests(1)
    assert upstream.received[0].get("traceparent") == SAMPLED.partition(": ")[2]
    told = plain(root.attributes)
    assert (told["sigward.action"], told["url.path"], told.get("sigward.identity")) == ("pass", "/key", None)
    assert b"abc" not in collector.received[0].body


async def test_each_attempt_and_each_wait(start: Start, upstream: Upstream, collector: Collector) -> None:
    pace = {"rules": [{"name": "slowly", "operation": "sqs:*", "rate": 5.0, "burst": 1.0}], "defaults": False}
    proxy = await start(upstream, otlp=collector.settings(), retry={"base": 0.01}, pace=pace)
    upstream.answers = [S500, hang_up, answer(200, b"{}")]
    await proxy.ask(request("POST", "/", LIST, body=b"{}"))
    (root,) = await collector.requests(1)
    below = collector.below(root)
    attempts = [span for span in below if span.kind == Span.SPAN_KIND_CLIENT]
    told = [plain(span.attributes) for span in attempts]
    assert [one.get("http.response.status_code") for one in told] == [500, None, 200]
    assert [one.get("error.type") for one in told] == ["500", "connection-broken", None]
    assert [one.get("http.request.resend_count") for one in told] == [None, 1, 2]
    assert [span.status.code for span in attempts] == [Status.STATUS_CODE_ERROR, Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET]
    assert told[1]["sigward.waited"] > 0
    paced = [span for span in below if span.name == "pace"]
    assert paced, [span.name for span in below]
    assert {span.kind for span in paced} == {Span.SPAN_KIND_INTERNAL}
    assert all(plain(span.attributes) == {"sigward.rule": "slowly"} for span in paced)
    assert all(inside(root, span) for span in below)
    assert all(one.end_time_unix_nano <= two.start_time_unix_nano for one, two in itertools.pairwise(attempts))
    assert {received.get("traceparent") for received in upstream.received} == {f"00-{root.trace_id.hex()}-{root.span_id.hex()}-01"}


async def test_a_wait_for_credentials(start: Start, upstream: Upstream, collector: Collector) -> None:
    proxy = await start(upstream, otlp=collector.settings(), credentials=False)
    proxy.on_refresh = lambda name: proxy.engine.set_credentials(name, KEY, SECRET, None, None, "test")
    await proxy.ask(request())
    (root,) = await collector.requests(1)
    wait, attempt = collector.below(root)
    assert (wait.name, plain(wait.attributes)) == ("credentials", {"sigward.identity": "default"})
    assert wait.end_time_unix_nano <= attempt.start_time_unix_nano


async def test_an_error_of_sigward_s_own(start: Start, upstream: Upstream, collector: Collector) -> None:
    proxy = await start(upstream, otlp=collector.settings(), credentials=False)
    proxy.engine.set_credentials_failed("default", [("env", "nothing there")])
    refused = await proxy.ask(request())
    denied = await proxy.ask(request(host="nobody.example"))
    first, second = await collector.requests(2)
    told = plain(first.attributes)
    assert (told["error.type"], told["http.response.status_code"], first.status.code) == ("no-credentials", 503, Status.STATUS_CODE_ERROR)
    assert told["aws.request_id"] == refused.get("x-amzn-requestid")
    assert OWN_ID.fullmatch(told["aws.request_id"])
    assert collector.below(first) == []
    told = plain(second.attributes)
    assert (told["error.type"], denied.status, second.status.code) == (denied.get("x-sigward-error"), 403, Status.STATUS_CODE_UNSET)


async def test_a_client_that_has_gone(start: Start, upstream: Upstream, collector: Collector) -> None:
    proxy = await start(upstream, otlp=collector.settings())

    async def never(_: Received, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await reader.read()

    upstream.answers = [never]
    async with connected(proxy.reverse) as (_, writer):
        writer.write(request("GET", "/?Action=ListQueues"))
        await upstream.wait_for(1)
        reset(writer)
    (root,) = await collector.requests(1)
    assert (root.name, plain(root.attributes)["error.type"]) == ("sqs/ListQueues", "client-gone")
    (attempt,) = collector.below(root)
    assert plain(attempt.attributes)["error.type"] == "client-gone"


async def test_what_is_not_sampled_is_not_sent(start: Start, upstream: Upstream, collector: Collector) -> None:
    """The client decides; where it says nothing, the ratio does."""
    proxy = await start(upstream, otlp=collector.settings(sample_ratio=0.0))
    await proxy.ask(request("GET", "/", UNSAMPLED))
    await proxy.ask(request())
    await proxy.ask(request("GET", "/sampled", SAMPLED))
    (root,) = await collector.requests(1)
    assert plain(root.attributes)["url.path"] == "/sampled"
    unsampled, fresh, _ = upstream.received
    assert re.fullmatch(f"00-{TRACE}-(?!{PARENT})[0-9a-f]{{16}}-00", unsampled.get("traceparent") or "")
    assert (fresh.get("traceparent") or "").endswith("-00")
    await asyncio.to_thread(proxy.engine.close)
    assert len(collector.spans()) == 2


async def test_the_logs_name_the_trace(start: Start, upstream: Upstream, collector: Collector, tmp_path: Path) -> None:
    files = {"access_log": str(tmp_path / "access.log"), "audit_log": str(tmp_path / "audit.log")}
    proxy = await start(upstream, otlp=collector.settings(), **files)
    await proxy.ask(request("GET", "/", SAMPLED))
    await asyncio.to_thread(proxy.engine.close)
    for name, file in files.items():
        traces = [json.loads(line)["trace_id"] for line in Path(file).read_text().splitlines()]  # noqa: ASYNC240
        # The audit log has a line before the call and one after it.
        assert traces == [TRACE] * (2 if name == "audit_log" else 1)


async def test_a_collector_that_is_away_harms_no_request(start: Start, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        # Bound and not listening: nobody else gets it.
        place = f"http://127.0.0.1:{unused.getsockname()[1]}"
        proxy = await start(
            upstream, otlp={"traces": f"{place}/v1/traces", "metrics": f"{place}/v1/metrics", "interval": 0.1, "delay": 0.1}
        )
        async with asyncio.timeout(PATIENCE):
            while counted(proxy.engine.metrics(), "sigward_otlp_errors_total", signal="traces") < 1:
                assert (await proxy.ask(request())).status == 200
            while counted(proxy.engine.metrics(), "sigward_otlp_errors_total", signal="metrics") < 2:
                assert (await proxy.ask(request())).status == 200
            while "metrics are not taken" not in caplog.text:
                await asyncio.sleep(0.01)
        assert caplog.text.count("metrics are not taken by") == 1, "it is said once"
        await asyncio.to_thread(proxy.engine.close, 5.0)
        assert counted(proxy.engine.metrics(), "sigward_otlp_dropped_total", signal="traces", reason="shutdown") >= 2


async def test_what_finds_no_room_is_counted(start: Start, upstream: Upstream) -> None:
    """A collector that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = await start(upstream, otlp={"traces": f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"}, access_log="off")

        async def ask() -> None:
            async with connected(proxy.reverse) as (reader, writer):
                # Refused by sigward itself: cheap, and a span each.
                batch = request(host="nobody.example") * 50
                while not counted(proxy.engine.metrics(), "sigward_otlp_dropped_total", reason="full"):
                    writer.write(batch)
                    for _ in range(50):
                        assert b" 403 " in await reader.readuntil(b"\r\n\r\n")
                        await reader.readuntil(b"\n")

        async with asyncio.timeout(60):
            await asyncio.gather(*(ask() for _ in range(4)))
        assert (await proxy.ask(request())).status == 200


async def test_what_a_collector_cannot_take_now_comes_again(start: Start, upstream: Upstream, collector: Collector) -> None:
    proxy = await start(upstream, otlp=collector.settings())
    collector.statuses = [503]
    await proxy.ask(request())
    await collector.wait_for(lambda: len(collector.received) == 2, "the second attempt")
    first, second = collector.received
    assert first.body == second.body
    assert counted(proxy.engine.metrics(), "sigward_otlp_dropped_total") == 0
    # What it will never take does not.
    collector.statuses = [400]
    await proxy.ask(request())
    async with asyncio.timeout(PATIENCE):
        while counted(proxy.engine.metrics(), "sigward_otlp_dropped_total", reason="rejected") != 2:
            await asyncio.sleep(0.01)


async def test_a_collector_behind_tls(start: Start, upstream: Upstream) -> None:
    """Verified as every upstream is."""
    async with Collector(upstream.context) as collector:
        proxy = await start(upstream, otlp={"traces": f"https://localhost:{collector.port}/v1/traces", "delay": 0.02})
        await proxy.ask(request())
        await collector.requests(1)
        assert collector.received[0].get("host") == f"localhost:{collector.port}"


@pytest.mark.fault("the collector's CA is replaced", holds="SIGHUP takes the new one for traces and metrics as for every upstream")
async def test_a_collector_whose_ca_changes(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    async with Upstream() as other, Collector(other.context) as collector:
        proxy = await start(upstream, otlp={"traces": f"https://localhost:{collector.port}/v1/traces"})
        await proxy.ask(request())
        async with asyncio.timeout(PATIENCE):
            while not counted(proxy.engine.metrics(), "sigward_otlp_errors_total", signal="traces"):
                await asyncio.sleep(0.01)
        with (tmp_path / "upstream.pem").open("ab") as file:
            file.write(other.ca.cert_pem.bytes())
        proxy.point_to(upstream.port)
        await collector.requests(1)


async def test_metrics(start: Start, upstream: Upstream, collector: Collector) -> None:
    otlp = {"metrics": f"http://127.0.0.1:{collector.port}/v1/metrics", "interval": 0.1}
    proxy: Proxy = await start(upstream, otlp=otlp)
    await proxy.ask(request("POST", "/", LIST, body=b"{}"))
    await collector.wait_for(lambda: any("sigward_requests_total" in metrics for _, metrics in collector.metrics()), "the request's metric")
    *_, (resource, metrics) = collector.metrics()
    assert resource["service.name"] == "sigward"
    requests = metrics["sigward_requests_total"]
    (point,) = requests.sum.data_points
    assert requests.sum.is_monotonic
    assert point.as_double == 1
    assert plain(point.attributes) == {
        "action": "sign", "code": "200", "identity": "default", "operation": "ListQueues", "region": "us-east-1", "service": "sqs",
    }  # fmt: skip
    duration = metrics["sigward_request_duration_seconds"]
    (histogram,) = duration.histogram.data_points
    assert (duration.unit, histogram.count, sum(histogram.bucket_counts)) == ("s", 1, 1)
    assert len(histogram.bucket_counts) == len(histogram.explicit_bounds) + 1
    assert 0 < point.start_time_unix_nano <= point.time_unix_nano
    assert metrics["sigward_credentials_usable"].gauge.data_points[0].as_double == 1
    # The same families as on /metrics.
    shown = set(re.findall(r"^# TYPE (\S+)", proxy.engine.metrics(), re.MULTILINE))
    assert set(metrics) <= shown
    assert "sigward_traces" not in shown
    assert collector.exported() == []


async def test_a_client_s_signature_over_its_trace_context_is_checked_first(
    start: Start, upstream: Upstream, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older SDKs sign it. What goes on is sigward's."""
    monkeypatch.setattr(botocore.auth, "SIGNED_HEADERS_BLACKLIST", [])
    master = "ab" * 32
    (tmp_path / "clients.key").write_text(master)
    key, secret = _core.issue_key(master.encode(), "ci", 1)
    SECRETS.append(re.compile(re.escape(secret)))
    clients = {"required": True, "key_file": str(tmp_path / "clients.key"), "issued": [{"name": "ci", "rotation": 1}]}
    proxy = await start(upstream, otlp=collector.settings(), clients=clients)
    name, _, value = SAMPLED.partition(": ")
    asked = AWSRequest("GET", f"https://{HOST}/", headers={"host": HOST, name: value})
    botocore.auth.SigV4Auth(Credentials(key, secret), "sqs", "us-east-1").add_auth(asked)
    assert name in asked.headers["authorization"]
    response = await proxy.ask(request("GET", "/", *(f"{key}: {text}" for key, text in asked.headers.items() if key != "host")))
    assert response.status == 200, response
    (root,) = await collector.requests(1)
    assert (root.trace_id.hex(), plain(root.attributes)["sigward.client"]) == (TRACE, "ci")
    assert upstream.received[0].get(name) == f"00-{TRACE}-{root.span_id.hex()}-01"


async def test_a_change_takes_a_restart(start: Start, upstream: Upstream, collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    proxy: Proxy = await start(upstream, otlp=collector.settings())
    proxy.point_to(upstream.port, otlp=None)
    await proxy.ask(request())
    await collector.requests(1)
    async with asyncio.timeout(PATIENCE):
        while "otlp has changed: that takes a restart" not in caplog.text:
            await asyncio.sleep(0.01)
