"""What the native front is measured against: nginx with a plain `proxy_pass`, and whatever `SIGWARD_PEER` names.

nginx signs nothing; it is how fast a proxy on one core can be that does no more than to take a request and to send it on over TLS.
"""

import contextlib
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from sigward.demo.child import START_SECONDS, Child, clean_environment
from sigward.errors import DemoError
from tests.bench.harness import CREDENTIALS, DYNAMODB, HOSTS, REGION, Proxy, Upstream, certificate, free_port, nginx_command, pinned

NGINX = """
worker_processes {workers};
daemon off;
pid {directory}/nginx.pid;
error_log stderr notice;
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 100000000;
    client_max_body_size 0;
    upstream behind {{
        server 127.0.0.1:{upstream};
        keepalive 4096;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{plain} backlog=4096;
        listen 127.0.0.1:{tls} ssl http2 backlog=4096;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate {directory}/certificate.pem;
        ssl_certificate_key {directory}/key.pem;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        proxy_ssl_protocols TLSv1.2 TLSv1.3;
        proxy_ssl_server_name on;
        proxy_ssl_name {name};
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate {ca_file};
        location / {{ proxy_pass https://behind; }}
        # Large bodies are not for its disk; with buffers of one TLS record and more it is faster than with the 4 KiB of its default.
        location ~ ^/(files|bucket|held)/ {{
            proxy_buffering off;
            proxy_buffer_size {large};
            proxy_buffers 8 {large};
            proxy_request_buffering off;
            client_body_buffer_size {large};
            proxy_pass https://behind;
        }}
    }}
}}
"""


@contextmanager
def nginx(behind: Upstream, cpus: str | None = None, workers: int = 1) -> Iterator[Proxy]:
    """One worker, connections kept, the upstream verified, no log. `cpus`: see `harness.pinned`."""
    with tempfile.TemporaryDirectory(prefix="sigward-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        authority = trustme.CA()
        certificate(directory, authority, DYNAMODB)
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        plain, tls = free_port(), free_port()
        (directory / "nginx.conf").write_text(
            NGINX.format(
                directory=directory,
                workers=workers,
                upstream=behind.port,
                plain=plain,
                tls=tls,
                name=DYNAMODB,
                ca_file=behind.ca_file,
                large="64k",
            )
        )
        with Child(pinned(cpus, nginx_command(directory)), clean_environment(), directory) as child:
            child.wait_for("start worker process ")
            addresses = dict.fromkeys(HOSTS, f"127.0.0.1:{plain}") | {"tls": f"127.0.0.1:{tls}"}
            yield Proxy("nginx", child, addresses, directory / "ca.pem", f"{DYNAMODB}:443")


def peers(told: str) -> dict[str, str]:
    """`SIGWARD_PEER`: "name=command", one a line or with `;;` between. Raises `ValueError` where there is no name or command."""
    found = {}
    for part in told.replace(";;", "\n").splitlines():
        if not part.strip():
            continue
        name, equals, command = (piece.strip() for piece in part.partition("="))
        if not (name and equals and command):
            raise ValueError(f"SIGWARD_PEER: {part.strip()!r} is not name=command")
        found[name] = command
    return found


@contextmanager
def peer(name: str, command: str, behind: Upstream, cpus: str | None = None) -> Iterator[Proxy]:
    """Another proxy, by a shell's command. It must serve plain HTTP on 127.0.0.1:$LISTEN_PORT, and is ready when that can be connected to.

    It gets $UPSTREAM_PORT (127.0.0.1, TLS, a certificate for AWS's hosts, "localhost" and 127.0.0.1), $CA_FILE, $REGION and keys in $AWS_….
    """
    port = free_port()
    environment = clean_environment() | CREDENTIALS | {"AWS_DEFAULT_REGION": REGION, "REGION": REGION}
    environment |= {"LISTEN_PORT": str(port), "UPSTREAM_PORT": str(behind.port), "CA_FILE": str(behind.ca_file)}
    with tempfile.TemporaryDirectory(prefix="sigward-bench-") as directory:
        child = Child(pinned(cpus, ["sh", "-c", command]), environment, Path(directory))
        try:
            _wait_for_port(port, child)
            yield Proxy(name, child, dict.fromkeys(HOSTS, f"127.0.0.1:{port}"), behind.ca_file, f"{DYNAMODB}:443")
        finally:
            # A shell does not pass signals on.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGTERM)
            child.stop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGKILL)


def _wait_for_port(port: int, child: Child) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise DemoError(f"a peer does not serve on its port:\n{child.output()[-2000:]}", hint="Run its command by hand.")
