"""Where every request must be signed with an issued key, nothing leads past the engine."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from mitmproxy import http

from sigward import _core
from sigward.mitm.addon import Tunnels

AWS = "sts.us-east-1.amazonaws.com"


class Engine:
    """What the addon asks of an engine."""

    def __init__(self, *, tunnels: bool) -> None:
        self._tunnels = tunnels

    def handling(self, host: str, _port: int, opening: str, name: str | None = None, _: object = ()) -> tuple[str, str, str]:
        if host.endswith(".amazonaws.com") and opening != "other" and name in (None, host):
            return "intercept", "", ""
        return ("tunnel", "", "") if self._tunnels else ("refuse", "tunnel-refused", "no")

    def came_round(self, _headers: object) -> None:
        return None

    def leads_back(self, _address: str, _port: int) -> None:
        return None

    def make_room(self, _for_client: bool, /) -> None:
        """There is."""

    def may_connect(self, _host: str, _address: str | None = None) -> bool:
        return True


def addon(*, tunnels: bool) -> Tunnels:
    return Tunnels(cast(_core.Engine, Engine(tunnels=tunnels)))


@pytest.mark.parametrize("tunnels", [True, False])
async def test_a_connection_of_mitmproxys_own(tunnels: bool) -> None:
    data: Any = SimpleNamespace(server=SimpleNamespace(address=("203.0.113.1", 443), error=None))
    await addon(tunnels=tunnels).server_connect(data)
    assert (data.server.error is None) is tunnels


@pytest.mark.parametrize("tunnels", [True, False])
async def test_a_connect_to_a_stranger(tunnels: bool) -> None:
    flow: Any = SimpleNamespace(request=SimpleNamespace(host="203.0.113.1", port=443, headers=http.Headers()), response=None)
    await addon(tunnels=tunnels).http_connect(flow)
    assert (flow.response is None) is tunnels


@pytest.mark.parametrize("tunnels", [True, False])
def test_a_name_in_tls_that_is_another_than_connects(tunnels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sigward.mitm.addon.is_inside_connect", lambda _: True)
    server = SimpleNamespace(address=(AWS, 443))
    hello = SimpleNamespace(sni="evil.test", alpn_protocols=[b"h2"])
    data: Any = SimpleNamespace(context=SimpleNamespace(server=server), client_hello=hello, ignore_connection=False)
    addon(tunnels=tunnels).tls_clienthello(data)
    assert data.ignore_connection
    assert (server.address is not None) is tunnels, "without an address it leads nowhere"
