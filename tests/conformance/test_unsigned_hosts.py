"""Hosts that are signed for only if somebody says so: what the table does not have, and what takes no SigV4."""

import asyncio

import pytest

from tests.conformance.conftest import Proxy, Start
from tests.conformance.test_requests import dummy, request
from tests.support import Received, Upstream, assert_signed, connected, read_response

NEW = "new-thing.us-east-1.amazonaws.com"
GIT = "git-codecommit.us-east-1.amazonaws.com"
SMTP = "email-smtp.us-east-1.amazonaws.com"
LATTICE = "data-svc-0a.1234abc.vpc-lattice-svcs.us-east-1.on.aws"


async def by_proxy(proxy: Proxy, host: str, *headers: str) -> Received:
    """What arrives of a request inside CONNECT, intercepted."""
    async with proxy.tunnel(f"{host}:443", host) as (reader, writer):
        writer.write(request("GET", "/x", *headers, host=host))
        assert (await asyncio.wait_for(read_response(reader), 10)).status == 200
    return proxy.upstream.received[-1]


async def by_host(proxy: Proxy, host: str, *headers: str) -> Received:
    """What arrives of a request to the reverse listener."""
    assert (await proxy.ask(request("GET", "/x", *headers, host=host))).status == 200
    return proxy.upstream.received[-1]


async def test_a_host_that_the_table_lacks(start: Start, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    """It passes as it came, is refused by a reverse listener, and is signed for where the client's own scope names it."""
    proxy = await start(upstream)
    with caplog.at_level("WARNING"):
        for headers in ((), (dummy("iam"),), (dummy("new-thing", "eu-west-1"),), ("Authorization: Bearer x",)):
            passed = await by_proxy(proxy, NEW, *headers)
            assert passed.all("authorization") == [line.partition(": ")[2] for line in headers]
            assert not passed.all("x-amz-date")
        assert assert_signed(await by_proxy(proxy, NEW, dummy("new-thing")), NEW)["service"] == "new-thing"
        before = len(upstream.received)
        refused = await proxy.ask(request(host=NEW))
        assert (refused.status, refused.get("x-sigward-error")) == (403, "unknown-service")
        assert b"[[route]]" in refused.body
        assert b"sigward knowledge refresh" in refused.body
        assert len(upstream.received) == before
        assert_signed(await by_host(proxy, NEW, dummy("new-thing")), NEW)
        # Another one is told of, too; the first is told of once.
        await proxy.ask(request(host="newer-thing.us-east-1.amazonaws.com"))
        async with asyncio.timeout(20):
            while "newer-thing" not in caplog.text:
                await asyncio.sleep(0.01)
    told = [record.getMessage() for record in caplog.records if "the table of AWS's hosts" in record.getMessage()]
    assert [line.split()[0] for line in told] == [NEW, "newer-thing.us-east-1.amazonaws.com"]
    assert "pass unsigned" in told[0]
    assert "are refused" in told[1]
    assert "[[route]]" in told[0]


async def test_a_route_is_a_word_for_a_host(start: Start, upstream: Upstream) -> None:
    """Its host in full, or a service; a rule for every host of AWS's is none."""
    connect = f"127.0.0.1:{upstream.port}"
    routes = [
        {"host": NEW, "connect": connect},
        {"host": "named.us-east-1.amazonaws.com", "service": "other", "connect": connect},
        {"host": "*.amazonaws.com", "connect": connect},
    ]
    proxy = await start(upstream, routes=routes)
    for host, service in ((NEW, "new-thing"), ("named.us-east-1.amazonaws.com", "other")):
        assert assert_signed(await by_host(proxy, host), host)["service"] == service
    refused = await proxy.ask(request(host="third.us-east-1.amazonaws.com"))
    assert refused.get("x-sigward-error") == "unknown-service"


async def test_git_over_https_is_challenged_by_codecommit_and_nobody_else(proxy: Proxy) -> None:
    """Git's first request is bare: signed, it would be refused, and Git would never ask for a password."""
    for headers in ((), ("Authorization: Basic dXNlcjpwYXNzd29yZA==",), (dummy("git-codecommit"),)):
        for passed in (await by_proxy(proxy, GIT, *headers), await by_host(proxy, GIT, *headers)):
            assert passed.all("authorization") == [line.partition(": ")[2] for line in headers]
    assert assert_signed(await by_proxy(proxy, GIT, dummy("codecommit")), GIT)["service"] == "codecommit"


async def test_what_takes_no_sigv4_is_not_intercepted(start: Start, upstream: Upstream) -> None:
    """The upstream's own certificate arrives: no CA of sigward's is needed, and no byte is changed."""
    proxy = await start(upstream, routes=[])
    for host in (SMTP, "oidc.eks.us-east-1.amazonaws.com", "123456789012.dkr.ecr.us-east-1.amazonaws.com"):
        assert proxy.engine.handling(host, 443, "unknown")[0] == "tunnel", host
    for host in (NEW, GIT, "acm.us-east-1.amazonaws.com"):
        assert proxy.engine.handling(host, 443, "unknown")[0] == "intercept", host


async def test_vpc_lattice_takes_no_hash_of_the_body(start: Start) -> None:
    """See "SIGv4 authenticated requests" (VPC Lattice User Guide)."""
    async with Upstream(hosts=(LATTICE, "*.amazonaws.com")) as upstream:
        proxy = await start(upstream, routes=[{"host": "*.on.aws", "connect": f"127.0.0.1:{upstream.port}"}])
        async with connected(proxy.reverse) as (reader, writer):
            for body in (b"", b"x" * 3000):
                writer.write(request("POST", "/", host=LATTICE, body=body))
                assert (await asyncio.wait_for(read_response(reader), 10)).status == 200
                assert upstream.received[-1].get("x-amz-content-sha256") == "UNSIGNED-PAYLOAD"
                assert upstream.received[-1].body == body
                assert assert_signed(upstream.received[-1], LATTICE)["service"] == "vpc-lattice-svcs"
