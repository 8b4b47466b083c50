"""What the engine tells is in Python's log, whichever front runs."""

import asyncio
import logging

import pytest

from tests.collector import Collector
from tests.conformance.conftest import Start
from tests.conformance.test_requests import request
from tests.conformance.test_retries import LIST, answer
from tests.support import Upstream, counted

PATIENCE = 20.0


async def test_what_the_engine_tells_is_in_pythons_log(start: Start, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        await start(upstream, pace={"shared": "redis://:its-password@127.0.0.1:1"})
        async with asyncio.timeout(PATIENCE):
            while not (told := [record for record in caplog.records if record.name == "sigward.engine.fleet"]):
                await asyncio.sleep(0.01)
    assert (told[0].levelno, told[0].levelname) == (logging.WARNING, "WARNING")
    assert "the store of shared limits is away" in told[0].getMessage()
    assert "its-password" not in caplog.text


async def test_what_is_below_the_level_is_not_told(start: Start, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        proxy = await start(upstream, pace={"shared": "redis://127.0.0.1:1"}, log_level="error")
        async with asyncio.timeout(PATIENCE):
            while not counted(proxy.engine.metrics(), "sigward_pace_store_errors_total"):
                await asyncio.sleep(0.01)
        assert (await proxy.ask(request())).status == 200
    assert not [record for record in caplog.records if record.name.startswith("sigward.engine")]


async def test_a_line_about_a_request_names_it(start: Start, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    """As AWS does, so that it is found in the access log and in a trace."""
    async with Collector() as collector:
        proxy = await start(upstream, otlp=collector.settings())
        upstream.answers = [answer(400, b'{"__type":"ThrottlingException"}'), answer(200, b"{}", "x-amzn-requestid: an-id")]
        with caplog.at_level("INFO"):
            assert (await proxy.ask(request("POST", "/", LIST, body=b"{}"))).status == 200
            async with asyncio.timeout(PATIENCE):
                while not (told := [record for record in caplog.records if "is throttled" in record.getMessage()]):
                    await asyncio.sleep(0.01)
        (root,) = await collector.requests(1)
    message, fields = told[0].said  # type: ignore[attr-defined]
    assert fields == {"request_id": "an-id", "trace_id": root.trace_id.hex()}
    assert told[0].getMessage() == f"{message} request_id=an-id trace_id={root.trace_id.hex()}"
