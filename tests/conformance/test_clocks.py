"""Whose clock a signature goes by: the endpoint's, as its answers tell it, and never another endpoint's."""

import asyncio
import calendar
import struct
import time
from email.utils import formatdate
from typing import Any

import pytest

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_forms import message, messages
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.conformance.test_retries import answer
from tests.support import SECRET, Received, Upstream, assert_signed

HOUR, YEARS = 3600, 10 * 365 * 86_400
SKEWED = b'{"__type": "RequestTimeTooSkewed"}'


def skewed(ahead: int) -> bytes:
    """The answer of an endpoint whose clock is so many seconds ahead."""
    return answer(403, SKEWED, f"Date: {formatdate(time.time() + ahead, usegmt=True)}")


def ahead(received: Received) -> int:
    """Hours that a signature's time is ahead of ours."""
    stamp = received.get("x-amz-date")
    assert stamp is not None
    return round((calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) - time.time()) / HOUR)


@pytest.mark.fault("an endpoint whose clock is off", holds="its own calls alone are signed by its clock")
@pytest.mark.parametrize("hours", [2, -2, 23])
async def test_a_clock_is_the_endpoint_s_own(proxy: Proxy, upstream: Upstream, hours: int) -> None:
    upstream.answers = [skewed(hours * HOUR)]
    for host in (HOST, BUCKET_HOST, HOST):
        assert (await proxy.ask(request(host=host))).status == 200
    assert [ahead(received) for received in upstream.received] == [0, hours, 0, hours]
    assert_signed(upstream.received[1], HOST)


@pytest.mark.parametrize("seconds", [YEARS, -YEARS, 25 * HOUR])
async def test_a_clock_that_is_off_by_more_than_a_day_corrects_nothing(
    proxy: Proxy, upstream: Upstream, caplog: pytest.LogCaptureFixture, seconds: int
) -> None:
    upstream.answers = [skewed(seconds), skewed(seconds)]
    for _ in range(2):
        response = await proxy.ask(request())
        assert (response.status, response.body, response.get("x-sigward-attempts")) == (403, SKEWED, "1")
    for host in (HOST, BUCKET_HOST):
        assert (await proxy.ask(request(host=host))).status == 200
    assert [ahead(received) for received in upstream.received] == [0, 0, 0, 0]
    async with asyncio.timeout(20):
        while "too far to follow" not in caplog.text:
            await asyncio.sleep(0.01)
    # The engine's lines come in order: another would be there by now.
    assert caplog.text.count("too far to follow") == 1
    assert HOST in next(line for line in caplog.text.splitlines() if "too far to follow" in line)


async def test_an_event_stream_goes_by_the_clock_of_its_request(start: Start, upstream: Upstream) -> None:
    routes = [{"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}", "service": "transcribe"}]
    proxy = await start(upstream, routes=routes)
    upstream.answers = [skewed(5 * HOUR)]
    assert (await proxy.ask(request())).status == 200
    stream = request("POST", "/stream", "Content-Type: application/vnd.amazon.eventstream", body=message(b"", b"audio"))
    assert (await proxy.ask(stream)).status == 200
    received = upstream.received[-1]
    dates = [struct.unpack(">q", headers[":date"])[0] / 1000 for headers, _ in messages(received.body)]
    assert [round((date - time.time()) / HOUR) for date in dates] == [5, 5]
    assert ahead(received) == 5


async def test_credentials_expire_by_the_endpoint_s_clock(proxy: Proxy, upstream: Upstream) -> None:
    """By that of an endpoint that is ahead they have, by ours they have not."""
    asked: list[str] = []

    def refresh(identity: str) -> None:
        asked.append(identity)
        proxy.engine.set_credentials("default", "AKIDFRESH", SECRET, None, time.time() + 5 * HOUR, "test")

    proxy.on_refresh = refresh
    upstream.answers = [skewed(2 * HOUR)]
    assert (await proxy.ask(request())).status == 200
    proxy.engine.set_credentials("default", "AKIDOLD", SECRET, None, time.time() + HOUR, "test")
    assert (await proxy.ask(request(host=BUCKET_HOST))).status == 200
    assert (asked, key(upstream.received[-1])) == ([], "AKIDOLD")
    assert (await proxy.ask(request())).status == 200
    assert (asked, key(upstream.received[-1])) == (["default"], "AKIDFRESH")


def key(received: Received) -> Any:
    return (received.get("authorization") or "").partition("Credential=")[2].split("/")[0]


EXPIRED = b'{"__type": "ExpiredTokenException"}'
TOO_OLD = (("custom-process", "its keys expired"),)


@pytest.mark.fault(
    "the host's clock is ahead by more than the keys' life", holds="keys expire by AWS's clock: calls are signed by it, and go on"
)
async def test_keys_that_have_expired_by_our_clock_alone(start: Start, upstream: Upstream) -> None:
    """Nobody has told the time yet: the endpoint judges the keys, and tells it. The next endpoint needs no such try."""
    proxy = await start(upstream)
    proxy.engine.set_credentials("default", "AKIDOLD", SECRET, None, time.time() - HOUR, "custom-process")
    proxy.engine.set_credentials_failed("default", TOO_OLD)
    assert proxy.engine.clock_ahead() == 0
    upstream.answers = [skewed(-7 * HOUR)]
    assert (await proxy.ask(request())).status == 200
    assert [(ahead(received), key(received)) for received in upstream.received] == [(0, "AKIDOLD"), (-7, "AKIDOLD")]
    assert round(proxy.engine.clock_ahead() / HOUR) in (0, -7), "as the last answer was dated, if it was"
    assert (await proxy.ask(request())).status == 200
    assert ahead(upstream.received[-1]) == -7


@pytest.mark.fault("keys are expired, and no other source has the time", holds="AWS says so once, then sigward does")
async def test_keys_that_have_expired_by_every_clock(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream)
    proxy.engine.set_credentials("default", "AKIDOLD", SECRET, None, time.time() - HOUR, "custom-process")
    proxy.engine.set_credentials_failed("default", TOO_OLD)
    proxy.on_refresh = lambda name: proxy.engine.set_credentials_failed(name, TOO_OLD)
    upstream.answers = [answer(403, EXPIRED, f"Date: {formatdate(time.time(), usegmt=True)}")]
    for _ in range(2):
        response = await proxy.ask(request())
        assert (response.status, response.get("x-sigward-error")) == (503, "no-credentials")
    assert len(upstream.received) == 1


async def test_what_a_source_says_of_the_time_makes_keys_usable(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream)
    proxy.engine.set_credentials("default", "AKIDOLD", SECRET, None, time.time() - HOUR, "container-role")
    assert 'sigward_credentials_usable{identity="default"} 0' in proxy.engine.metrics()
    proxy.engine.hear_clock(-7 * HOUR)
    assert proxy.engine.clock_ahead() == -7 * HOUR
    assert 'sigward_credentials_usable{identity="default"} 1' in proxy.engine.metrics()
    asked: list[str] = []
    proxy.on_refresh = asked.append
    assert (await proxy.ask(request())).status == 200
    assert asked == []
