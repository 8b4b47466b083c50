"""Answers that a customer's program has written: they can say all that AWS's say, and prove nothing of it.

Counted at the upstream: a call that is not safe to repeat goes out once, unless AWS itself says that it has done nothing.
"""

import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import pytest
import pytest_asyncio

from tests.conformance.conftest import Proxy, Start
from tests.conformance.test_requests import request
from tests.conformance.test_retries import answer
from tests.support import KEY, SECRET, Upstream, assert_signed

API, URL = "abc.execute-api.us-east-1.amazonaws.com", "abc.lambda-url.us-east-1.on.aws"
GRAPHQL, TOOLS = "abc.appsync-api.us-east-1.amazonaws.com", "abc.gateway.bedrock-agentcore.us-east-1.amazonaws.com"
LATTICE, SEARCH = "abc.vpc-lattice-svcs.us-east-1.on.aws", "search-logs.us-east-1.es.amazonaws.com"
DOMAIN, OTHERS, OWN = "api.example.com", "www.example.com", "own.example.com"
GATEWAY = ("x-amzn-RequestId: 3b8f0", "x-amz-apigw-id: LLCm7FonFiAFXFg=")
"""What a gateway's own answers bear."""
BODY = b'{"a": 1}'


def later(seconds: float = 600) -> str:
    return f"Date: {formatdate(time.time() + seconds, usegmt=True)}"


def programs() -> list[tuple[str, bytes]]:
    """What a program may say after its work."""
    throttled = "x-amzn-ErrorType: TooManyRequestsException"
    return [
        ("429", answer(429, b"slow")),
        ("429, no body", answer(429, b"")),
        ("a code in JSON", answer(400, b'{"__type":"ThrottlingException"}')),
        ("a code in XML", answer(503, b"<Error><Code>SlowDown</Code></Error>")),
        ("an expired token", answer(403, b'{"code":"ExpiredToken"}')),
        ("a wrong clock", answer(403, b'{"__type":"RequestTimeTooSkewed"}', later())),
        ("a wrong signature", answer(403, b'{"__type":"InvalidSignatureException"}', later())),
        ("500", answer(500, b"oops")),
        ("AWS's header", answer(429, b"slow", throttled)),
        ("AWS's header, traced", answer(429, b"slow", throttled, *GATEWAY, "X-Amzn-Trace-Id: Root=1-2;Sampled=0")),
        ("AWS's header, of a proxied host", answer(429, b"slow", throttled, *GATEWAY, "x-amzn-Remapped-Date: now")),
        ("AWS's header, of an HTTP API", answer(429, b"slow", throttled, "Apigw-Requestid: 1", "x-amzn-requestid: 2")),
        ("another service's header", answer(400, b"", "x-amzn-query-error: Throttling;Sender")),
        ("an expired token, traced", answer(403, b"", "x-amzn-ErrorType: ExpiredTokenException", *GATEWAY, "X-Amzn-Trace-Id: Root=1")),
    ]


@pytest_asyncio.fixture
async def far() -> AsyncIterator[Upstream]:
    names = (API, URL, GRAPHQL, TOOLS, LATTICE, SEARCH, DOMAIN, OTHERS, OWN)
    async with Upstream(hosts=tuple(f"*.{name.split('.', 1)[1]}" for name in names)) as running:
        yield running


async def begin(start: Start, far: Upstream, **settings: Any) -> Proxy:
    there = {"connect": f"127.0.0.1:{far.port}"}
    routes = [
        {"host": OTHERS, "action": "pass"} | there,
        {"host": DOMAIN, "service": "execute-api", "region": "us-east-1"} | there,
        {"host": OWN, "service": "of-our-own", "region": "us-east-1"} | there,
        {"host": "*.amazonaws.com"} | there,
        {"host": "*.on.aws"} | there,
    ]
    running: Proxy = await start(far, routes=routes, **settings)
    running.on_refresh = lambda name: running.engine.set_credentials(name, KEY, SECRET, None, None, "renewed")
    return running


async def sent(proxy: Proxy, host: str, said: bytes, method: str = "POST") -> int:
    """How often the upstream sees a call that it answers like this at first."""
    before = len(proxy.upstream.received)
    proxy.upstream.answers = [said]
    response = await proxy.ask(request(method, "/orders", host=host, body=BODY if method != "GET" else b""))
    times = len(proxy.upstream.received) - before
    assert response.status == (200 if times > 1 else int(said.split(b" ")[1])), said
    proxy.upstream.answers = []
    return times


@pytest.mark.fault(
    "a customer's program says that AWS throttles, or that keys have expired", holds="no POST runs twice; what is safe is tried again"
)
async def test_a_programs_word_repeats_no_call_that_is_not_safe(start: Start, far: Upstream) -> None:
    proxy = await begin(start, far)
    for host in (API, URL, GRAPHQL, TOOLS, LATTICE, DOMAIN, OTHERS, OWN):
        for why, said in programs():
            assert await sent(proxy, host, said) == 1, (host, why)
        # By its status alone, where that does no harm.
        for method in ("GET", "PUT"):
            assert await sent(proxy, host, answer(429, b"slow"), method) == 2, (host, method)
            assert await sent(proxy, host, answer(503, b"slow"), method) == 2, (host, method)
            assert await sent(proxy, host, answer(400, b'{"__type":"ThrottlingException"}'), method) == 1, (host, method)


async def test_what_a_gateway_of_awss_says_itself_counts(start: Start, far: Upstream) -> None:
    """Then no program has run."""
    proxy = await begin(start, far)
    failed = answer(504, b'{"message":"Endpoint request timed out"}', "x-amzn-ErrorType: InternalServerErrorException", *GATEWAY)
    for host in (API, URL, GRAPHQL, DOMAIN):
        for status, code in [(429, "TooManyRequestsException"), (403, "ExpiredTokenException"), (403, "InvalidSignatureException")]:
            said = answer(status, b'{"message":"no"}', f"x-amzn-ErrorType: {code}", *GATEWAY, later())
            assert await sent(proxy, host, said) == 2, (host, code)
            assert_signed(far.received[-1], host)
        assert await sent(proxy, host, failed) == 1, "the program may have run"


async def test_no_program_speaks_for_a_gateway_where_its_headers_are_passed_on(start: Start, far: Upstream) -> None:
    proxy = await begin(start, far)
    for host in (LATTICE, TOOLS, OTHERS, OWN):
        assert await sent(proxy, host, answer(429, b"", "x-amzn-ErrorType: TooManyRequestsException", *GATEWAY)) == 1, host
        assert await sent(proxy, host, answer(403, b"", "x-amzn-ErrorType: ExpiredTokenException", *GATEWAY)) == 1, host


async def test_an_operator_may_have_all_repeated(start: Start, far: Upstream) -> None:
    proxy = await begin(start, far, retry={"base": 0.01, "throttle_base": 0.01, "repeat": "all"})
    for host in (API, OTHERS):
        assert await sent(proxy, host, answer(429, b"slow")) == 2, host
        assert await sent(proxy, host, answer(403, b'{"code":"ExpiredToken"}')) == 1, "that does not say what it is to mend"


@pytest.mark.fault("a search engine answers 429 after a part of the work", holds="the part is not done twice")
async def test_a_search_that_has_begun_is_not_repeated(start: Start, far: Upstream) -> None:
    proxy = await begin(start, far)
    rejected = b'{"error":{"type":"rejected_execution_exception","reason":"queue full"},"status":429}'
    assert await sent(proxy, SEARCH, answer(429, rejected)) == 2
    done = b'{\n  "took" : 147,\n  "updated" : 120,\n  "failures" : [ { "status" : 429 } ]\n}'
    assert await sent(proxy, SEARCH, answer(429, done)) == 1
