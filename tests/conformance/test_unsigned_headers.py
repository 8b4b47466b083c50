"""What a later hop may change goes on as it came, and unsigned: the signature must hold when it has changed."""

import re

import pytest

from sigward import _core
from tests.conformance.conftest import HOST, Start
from tests.conformance.test_requests import BUCKET_HOST, request
from tests.support import Upstream, assert_signed, engine_settings

HOPS = {"connection", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
"""Of the table, what ends at sigward, as `proxy-*` do; and what it replaces."""

CHANGED = [
    (name.replace("*", "any").title(), f"1 {name}")
    for name, _ in _core.unsigned_headers()
    if name not in HOPS and not name.startswith("proxy-") and name not in {"authorization", "max-forwards"}
]
SIGNED = [("X-Original-Url", "/x"), ("X-Forwarded", "1"), ("Content-Type", "text/plain"), ("X-Amzn-Query-Mode", "false"), ("X-Tenant", "t")]
DUMMY = (
    "Authorization: AWS4-HMAC-SHA256 Credential=DUMMY/20150830/us-east-1/sqs/aws4_request, "
    "SignedHeaders=host;via;x-forwarded-for;x-real-ip;x-hop, Signature=00"
)


@pytest.mark.parametrize("host", [HOST, BUCKET_HOST])
async def test_what_a_hop_may_change_is_sent_and_not_signed(start: Start, upstream: Upstream, host: str) -> None:
    """Nor what a route names; all else is. What a client with dummy keys says that it has signed does not matter."""
    route = {"host": "*.amazonaws.com", "connect": f"127.0.0.1:{upstream.port}", "unsigned_headers": ["X-Hop", "range"]}
    proxy = await start(upstream, routes=[route])
    named = [("X-Hop", "1"), ("X-Hop", "2"), ("Range", "bytes=0-1")]
    lines = [f"{name}: {value}" for name, value in [*CHANGED, *SIGNED, *named]]
    response = await proxy.ask(request("GET", "/?Action=ListQueues", *lines, DUMMY, host=host))
    assert response.status == 200, response
    received = upstream.received[0]
    signed = set(assert_signed(received, host)["headers"].split(";"))
    assert signed >= {name.lower() for name, _ in SIGNED} | {"host", "x-amz-date"}
    assert not signed & {name.lower() for name, _ in [*CHANGED, *named]}
    for name, value in CHANGED:
        assert received.all(name)[0] == value, name
    assert (received.all("x-hop"), received.all("range")) == (["1", "2"], ["bytes=0-1"])
    # Whatever becomes of them further on, the signature holds.
    unsigned = {name.lower() for name, _ in [*CHANGED, *named]}
    received.headers = [(name, value) for name, value in received.headers if name.lower() not in unsigned]
    assert_signed(received, host)


@pytest.mark.parametrize("name", ["host", "X-Amz-Target", "x-amz-*", "Content-Type", "Content-Encoding", "no name"])
def test_what_must_be_signed_cannot_be_named(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    ca_file = upstream.write_ca(tmp_path_factory.mktemp("ca") / "ca.pem")
    with pytest.raises(_core.SettingsError, match=re.escape("unsigned_headers")):
        _core.Engine(engine_settings(1, ca_file, routes=[{"name": "r", "host": "*", "unsigned_headers": [name]}]))
