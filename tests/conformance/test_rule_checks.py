"""Settings whose rules name nothing never count: what was denied before is denied still."""

from typing import Any

import pytest

from sigward import _core
from tests.conformance.conftest import HOST, Start
from tests.conformance.test_requests import request
from tests.support import Upstream, engine_settings

LIST = "X-Amz-Target: AmazonSQS.ListQueues"


def denying(upstream: Upstream, **more: Any) -> list[dict[str, Any]]:
    return [{"action": "deny", **more}, {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"}]


async def test_a_mistyped_deny_leaves_the_rules_as_they_were(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream, routes=denying(upstream, operation="sqs:ListQueues"))
    for mistyped in (
        {"operation": "sqs:ListQueue"},
        {"operation": "sqs:Lst*"},
        {"operation": "*:ListQueuez"},
        {"operation": "s3:ListBucket"},
    ):
        with pytest.raises(_core.SettingsError, match=r"^route #1: operation: "):
            proxy.point_to(upstream.port, routes=denying(upstream, **mistyped))
        with pytest.raises(_core.SettingsError, match=r"^route #1: operation: "):
            _core.Engine(engine_settings(upstream.port, proxy.ca_file, routes=denying(upstream, **mistyped)))
        response = await proxy.ask(request("POST", "/", LIST))
        assert (response.status, response.get("x-sigward-error")) == (403, "denied")
    with pytest.raises(_core.SettingsError, match=r"^pace #1: operation: "):
        proxy.point_to(upstream.port, routes=[], pace={"rules": [{"operation": "sqs:ListQueue", "rate": 1}]})
    response = await proxy.ask(request("POST", "/", LIST))
    assert (response.status, response.get("x-sigward-error")) == (403, "denied")
    assert upstream.received == []


async def test_warnings_are_of_the_settings_that_count(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream)
    assert proxy.engine.warnings() == []
    proxy.point_to(upstream.port, routes=denying(upstream, host=HOST, operation="sns:Publish"))
    (warning,) = proxy.engine.warnings()
    assert warning.startswith(f'route #1: host: "{HOST}" is a host of sqs, which does not have the operation "sns:Publish"')
    with pytest.raises(_core.SettingsError):
        proxy.point_to(upstream.port, routes=denying(upstream, operation="sqs:ListQueue"))
    assert proxy.engine.warnings() == [warning]
    proxy.point_to(upstream.port, routes=denying(upstream, operation="sqs:ListQueue", unchecked=True))
    assert proxy.engine.warnings() == []
