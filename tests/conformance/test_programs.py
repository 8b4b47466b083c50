"""Programs with a way of their own to speak HTTP: proxies in front of sigward, Prometheus, busybox."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sigward.demo.child import clean_environment
from tests.conformance.conftest import HOST, Proxy
from tests.needs import need
from tests.support import assert_signed, read_response


@contextlib.asynccontextmanager
async def running(*command: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program with no environment of the caller's; it is killed at the end."""
    child = await asyncio.create_subprocess_exec(*command, env=clean_environment() | variables)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


NGINX = """
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen unix:{directory}/socket;
        location / {{
            proxy_pass http://{address};
            proxy_set_header Host {host};
            proxy_set_header X-Forwarded-For "203.0.113.7";
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 10s
    timeout client 30s
    timeout server 30s
frontend in
    bind unix@{directory}/socket
    default_backend sigward
backend sigward
    option forwardfor
    http-request set-header Host {host}
    server sigward {address}
"""


@pytest.mark.parametrize("program", ["nginx", "haproxy"])
async def test_a_proxy_in_front(program: str, proxy: Proxy, tmp_path: Path) -> None:
    """nginx speaks HTTP/1.0 to what is behind it, and closes; HAProxy keeps its connections. Both add headers."""
    path, config, socket = need(program), tmp_path / "config", tmp_path / "socket"
    template = NGINX if program == "nginx" else HAPROXY
    config.write_text(template.format(directory=tmp_path, address="{}:{}".format(*proxy.reverse), host=HOST))
    arguments = ("-e", "stderr", "-c", str(config)) if program == "nginx" else ("-db", "-q", "-f", str(config))
    async with running(path, *arguments) as child:
        async with asyncio.timeout(30):
            while not socket.exists():
                assert child.returncode is None
                # There is nothing to wait on but the socket.
                await asyncio.sleep(0.02)
        reader, writer = await asyncio.open_unix_connection(socket)
        for request, body in (
            (b"GET /?Action=ListQueues HTTP/1.1\r\nHost: front\r\n\r\n", b""),
            (b"POST / HTTP/1.1\r\nHost: front\r\ncontent-length: 17\r\n\r\nAction=ListQueues", b"Action=ListQueues"),
            (
                b"POST / HTTP/1.1\r\nHost: front\r\ntransfer-encoding: chunked\r\n\r\n11\r\nAction=ListQueues\r\n0\r\n\r\n",
                b"Action=ListQueues",
            ),
        ):
            writer.write(request)
            assert (await read_response(reader, request[:4].strip().decode())).body == b"ok"
            assert proxy.upstream.received[-1].body == body
            assert_signed(proxy.upstream.received[-1], HOST)
        writer.close()


PROMETHEUS = """
rule_files: [rules.yml]
remote_write:
  - url: {scheme}://aps-workspaces.us-east-1.amazonaws.com/workspaces/ws-1/api/v1/remote_write
    proxy_url: {proxy}
    queue_config: {{batch_send_deadline: 50ms}}
"""


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_prometheus_writes_to_amazon_managed_prometheus(scheme: str, proxy: Proxy, tmp_path: Path) -> None:
    path, config = need("prometheus"), tmp_path / "prometheus.yml"
    # What it makes itself: targets are scraped after 5 s at the earliest.
    rule = {"name": "one", "interval": "100ms", "rules": [{"record": "one", "expr": "vector(1)"}]}
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [rule]}))
    config.write_text(PROMETHEUS.format(scheme=scheme, proxy="http://{}:{}".format(*proxy.forward)))
    arguments = (f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data", "--web.listen-address=127.0.0.1:0", "--log.level=error")
    trust = {"SSL_CERT_FILE": str(proxy.ca_file)} if scheme == "https" else {}
    async with running(path, *arguments, **trust):
        [received, *_] = await proxy.upstream.wait_for(1)
    assert (received.method, received.target) == ("POST", "/workspaces/ws-1/api/v1/remote_write")
    assert received.get("content-encoding") == "snappy"
    assert assert_signed(received, "aps-workspaces.us-east-1.amazonaws.com")["service"] == "aps"


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_busybox_asks_the_proxy_in_plain_text(scheme: str, proxy: Proxy) -> None:
    """`GET https://… HTTP/1.1`: no CONNECT and no TLS, so no CA either; it reads `http_proxy` alone. With `https://` it ends its half of
    the connection behind the request."""
    command = (need("busybox"), "wget", "-q", "-O", "-", f"{scheme}://{HOST}/?Action=ListQueues")
    async with asyncio.timeout(30):
        child = await asyncio.create_subprocess_exec(
            *command, env={"http_proxy": "http://{}:{}".format(*proxy.forward)}, stdout=asyncio.subprocess.PIPE
        )
        told, _ = await child.communicate()
    assert (child.returncode, told) == (0, b"ok")
    assert_signed(proxy.upstream.received[-1], HOST)
