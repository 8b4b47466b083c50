"""Hosts say any name to be their service or region, and clients choose hosts: what is kept by such names does not grow with them."""

import asyncio
import json

import pytest

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_requests import dummy, request
from tests.conformance.test_retries import answer
from tests.support import Upstream, assert_signed, connected, counted, read_response

REGIONS = [f"us-{first}{second}-1" for first in "abcdefghij" for second in "klmno"]
LIST = "X-Amz-Target: AmazonSQS.ListQueues"
PACED = {"rules": [{"operation": "sqs:*", "rate": 0.001, "burst": 1000, "per": ["region", "operation"]}]}


async def asked(proxy: Proxy, *hosts: str) -> None:
    """Asks these hosts on one connection; whatever comes of it."""
    async with connected(proxy.reverse) as (reader, writer):
        for host in hosts:
            # Its own scope makes sigward sign for a service that the table does not have.
            service, region = host.split(".")[:2]
            writer.write(request("POST", "/", LIST, dummy(service, region), host=host, body=b"{}"))
            await asyncio.wait_for(read_response(reader), 10)


async def admin(address: tuple[str, int], path: str) -> bytes:
    async with connected(address) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return (await asyncio.wait_for(read_response(reader), 10)).body


@pytest.mark.parametrize("throttled", [False, True])
async def test_made_up_regions_and_services_take_no_room(start: Start, throttled: bool) -> None:
    async with Upstream(hosts=("*.us-east-1.amazonaws.com", *(f"*.{region}.amazonaws.com" for region in REGIONS))) as upstream:
        # In adaptive mode, throttled answers would slow the others down.
        retry = {"mode": "standard" if throttled else "adaptive", "attempts": 1}
        proxy = await start(upstream, retry=retry, pace=PACED)
        if throttled:
            upstream.answers = [answer(400, b"", "x-amzn-errortype: ThrottlingException")] * 1000
        made_up = [f"{service}.{region}.amazonaws.com" for region in REGIONS for service in ("sqs", f"made-{region}")]
        made_up += [f"made-{region}.us-east-1.amazonaws.com" for region in REGIONS]
        await asked(proxy, HOST, *made_up[:2], made_up[-1])
        admin_address = proxy.engine.admin("127.0.0.1:0")
        before = proxy.engine.metrics(), await admin(admin_address, "/throttled")
        await asked(proxy, *made_up)
        after = proxy.engine.metrics(), await admin(admin_address, "/throttled")
        assert {len(received.all("authorization")) for received in upstream.received} == {1}
        assert len(upstream.received) == len(made_up) + 4, "each was signed and sent"
        assert after[0].count("\n") == before[0].count("\n")
        assert counted(after[0], "sigward_pace_buckets") == counted(before[0], "sigward_pace_buckets")
        assert len(json.loads(after[1])) == len(json.loads(before[1])) == (2 if throttled else 0)
        assert not any(region in after[0] + after[1].decode() for region in REGIONS)
        assert counted(after[0], "sigward_requests_total", service="sqs", region="other") == len(REGIONS) + 1
        assert counted(after[0], "sigward_requests_total", service="other", region="other") == len(REGIONS) + 1
        assert counted(after[0], "sigward_requests_total", service="other", region="us-east-1") == len(REGIONS) + 1
        # A real one has its own, however late it comes.
        await asked(proxy, "dynamodb.us-east-1.amazonaws.com")
        assert counted(proxy.engine.metrics(), "sigward_requests_total", service="dynamodb", region="us-east-1") == 1
        # What is signed has the host's own words.
        assert assert_signed(upstream.received[-2], made_up[-1])["service"] == f"made-{REGIONS[-1]}"


async def test_what_the_operator_names_is_told_apart(start: Start, upstream: Upstream) -> None:
    target = f"127.0.0.1:{upstream.port}"
    routes = [
        {"host": "minio.us-east-1.amazonaws.com", "service": "minio", "region": "lab-1", "connect": target},
        {"host": "*.amazonaws.com", "connect": target},
    ]
    proxy = await start(upstream, routes=routes)
    await asked(proxy, "minio.us-east-1.amazonaws.com", HOST)
    metrics = proxy.engine.metrics()
    assert counted(metrics, "sigward_requests_total", service="minio", region="lab-1", code="200") == 1
    assert counted(metrics, "sigward_requests_total", service="sqs", region="us-east-1", code="200") == 1
    assert counted(metrics, "sigward_requests_total", service="other") == 0
