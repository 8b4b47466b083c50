"""What a route changes of a request's headers: before the signature, so that it covers them, and in no record."""

from typing import Any

from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_requests import request
from tests.support import Upstream, assert_signed

EDITS: dict[str, Any] = {
    "copy_headers": {"Authorization": "X-Original-Authorization", "X-Old": "X-New"},
    "remove_headers": ["X-Old", "x-tenant"],
    "add_headers": {"x-tenant": "ours", "x-amz-meta-from": "sigward", "x-kept": "ours"},
}
SENT = ("Authorization: Bearer theirs", "X-Old: 1", "x-old: 2", "X-Tenant: theirs", "X-Kept: theirs")


async def edited(start: Start, upstream: Upstream, **more: Any) -> Proxy:
    rule = {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}"} | EDITS | more
    proxy: Proxy = await start(upstream, routes=[rule])
    return proxy


async def test_copied_removed_added_and_signed(start: Start, upstream: Upstream) -> None:
    proxy = await edited(start, upstream)
    assert (await proxy.ask(request("GET", "/?Action=ListQueues", *SENT))).status == 200
    received = upstream.received[0]
    signed = assert_signed(received, HOST)["headers"].split(";")
    assert {"x-original-authorization", "x-tenant", "x-amz-meta-from", "x-kept"} <= set(signed)
    names = ("x-original-authorization", "x-old", "x-new", "x-tenant", "x-amz-meta-from", "x-kept")
    assert [received.all(name) for name in names] == [["Bearer theirs"], [], ["1", "2"], ["ours"], ["sigward"], ["theirs"]]


async def test_what_passes_is_left_as_it_is(start: Start, upstream: Upstream) -> None:
    proxy = await edited(start, upstream, action="pass")
    assert (await proxy.ask(request("GET", "/", *SENT))).status == 200
    received = upstream.received[0]
    assert (received.get("authorization"), received.all("x-old"), received.get("x-tenant")) == ("Bearer theirs", ["1", "2"], "theirs")
