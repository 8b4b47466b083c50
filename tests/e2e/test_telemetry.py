"""OTLP from a running sigward: OpenTelemetry's own variables, and what is sent at SIGTERM."""

import asyncio
import signal
from pathlib import Path

import pytest

from sigward.demo.gateway import Gateway
from tests.collector import Collector, plain
from tests.e2e.test_faults import PATIENCE, Load, Local
from tests.support import Upstream, assert_no_secret


@pytest.mark.parametrize("front", ["mitmproxy", "native"])
async def test_what_is_left_is_sent_at_sigterm(front: str, tmp_path: Path) -> None:
    """Within the grace, and a request that is still under way with it."""
    async with Upstream() as upstream, Collector() as collector:
        local = Local(upstream, upstream.write_ca(tmp_path / "ca.pem"))
        variables = local.credentials() | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-key=a-secret-that-must-not-leak%2C",
            "OTEL_SERVICE_NAME": "sidecar",
            "OTEL_RESOURCE_ATTRIBUTES": "team=a%20b,service.name=other",
        }
        settings = {"front": front, "grace": PATIENCE, "otlp": {"endpoint": "environment", "interval": "1h"}, "log_level": "debug"}
        gateway = await asyncio.to_thread(Gateway(local, variables, **settings).__enter__)
        try:
            await asyncio.to_thread(gateway.wait_ready)
            load = Load(upstream, gateway)
            client = await load.client("client")
            client.send()
            assert await client.read()
            held = await load.client("held")
            held.send("held/")
            await upstream.wait_for(2)
            load.signal(signal.SIGTERM)
            await asyncio.to_thread(gateway.child.wait_for, "stopping: requests under way")
            load.go.set()
            assert await held.read()
            assert await load.exits() == 0
            client.writer.close()
            held.writer.close()
            output = gateway.child.output()
        finally:
            await asyncio.to_thread(gateway.close)
    assert {plain(root.attributes)["url.path"] for root in collector.roots()} == {*client.sent, *held.sent}
    ((resource, metrics),) = collector.metrics()
    assert (resource["service.name"], resource["team"]) == ("sidecar", "a b")
    assert sum(point.as_double for point in metrics["sigward_requests_total"].sum.data_points) == 2
    assert {received.get("x-key") for received in collector.received} == {"a-secret-that-must-not-leak,"}
    assert_no_secret(output, "sigward's log")
