"""Where an answer says that things are: a client of a reverse listener that follows it comes back to the listener."""

from urllib.parse import urljoin

from tests.conformance.conftest import HOST, Proxy
from tests.conformance.test_requests import request
from tests.support import read_response

OWN = {
    f"https://{HOST}/a/b?c=d%20e#f": "/a/b?c=d%20e#f",
    f"HTTPS://{HOST.upper()}:443/x": "/x",
    f"http://{HOST}/x": "/x",
    f"//{HOST}/x": "/x",
    f"https://{HOST}": "/",
    f"https://{HOST}?x": "/?x",
    f"https://{HOST}//evil.test/x": "/.//evil.test/x",
}
OTHERS = [
    "/x",
    "x",
    "https://sns.us-east-1.amazonaws.com/x",
    f"https://{HOST}.evil.test/x",
    f"https://{HOST}:8443/x",
    f"https://{HOST}@evil.test/x",
    f"https://user@{HOST}/x",
    f"ftp://{HOST}/x",
]


def answer(status: str, **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "content-length: 0", "", ""]).encode()


async def test_the_upstreams_own_host_is_the_listener(proxy: Proxy) -> None:
    """By a fixed upstream and by Host, whatever the status; another name in front of the listener is the client's to keep."""
    for status in ("302 Found", "201 Created"):
        for location, expected in OWN.items():
            proxy.upstream.answers = [answer(status, location=location, content_location=location, x_location=location)]
            response = await proxy.ask(request("GET", "/", host="sigward.internal:9000"), to=proxy.fixed)
            told = [response.get(name) for name in ("location", "content-location", "x-location")]
            assert told == [expected, expected, location]
    assert urljoin("http://sigward.internal:9000/", "/.//evil.test/x") == "http://sigward.internal:9000//evil.test/x"
    proxy.upstream.answers = [answer("307 Temporary Redirect", location=f"https://{HOST}/y")]
    assert (await proxy.ask(request())).get("location") == "/y"


async def test_others_stay(proxy: Proxy) -> None:
    for location in OTHERS:
        proxy.upstream.answers = [answer("302 Found", location=location)]
        assert (await proxy.ask(request(), to=proxy.fixed)).get("location") == location


async def test_a_proxys_client_sees_what_the_upstream_says(proxy: Proxy) -> None:
    """It asked for that very host, and will again."""
    location = f"https://{HOST}/x"
    proxy.upstream.answers = [answer("302 Found", location=location)] * 2
    raw = f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    assert (await proxy.ask(raw, to=proxy.forward)).get("location") == location
    async with proxy.tunnel(f"{HOST}:443", HOST) as (reader, writer):
        writer.write(request())
        assert (await read_response(reader)).get("location") == location
