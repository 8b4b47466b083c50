"""Requests at the same time do not share what belongs to one of them."""

import asyncio

from tests.conformance.conftest import Proxy
from tests.support import assert_signed

SERVICES = {
    "sqs.us-east-1.amazonaws.com": "sqs",
    "dynamodb.us-east-1.amazonaws.com": "dynamodb",
    "bucket.s3.us-east-1.amazonaws.com": "s3",
    "sts.us-east-1.amazonaws.com": "sts",
}


async def test_each_request_is_signed_for_its_own_service_host_and_body(proxy: Proxy) -> None:
    hosts = list(SERVICES) * 15

    async def call(number: int, host: str) -> None:
        body = b"body %d" % number
        head = f"PUT /{number} HTTP/1.1\r\nHost: {host}\r\nX-Amz-Meta-Number: {number}\r\nContent-Length: {len(body)}\r\n\r\n"
        response = await proxy.ask(head.encode() + body)
        assert response.status == 200

    await asyncio.gather(*(call(number, host) for number, host in enumerate(hosts)))
    assert len(proxy.upstream.received) == len(hosts)
    for received in proxy.upstream.received:
        host = hosts[int(received.target[1:])]
        assert received.body == b"body " + received.target[1:].encode()
        assert received.get("x-amz-meta-number") == received.target[1:]
        assert assert_signed(received, host)["service"] == SERVICES[host]
