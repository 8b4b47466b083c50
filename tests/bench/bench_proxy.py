"""The mitmproxy front against bare mitmproxy: requests/s, one core, 1 KiB POST, TLS upstream (nginx), in one interleaved run.

The proxy, engine thread included, has one core; nginx and the load generator share the other. Needs nginx, wrk, h2load, taskset.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import trustme

from sigward.demo.sidecar import Sidecar, bare_environment

HOST = "sqs.us-east-1.amazonaws.com"
SECONDS, ROUNDS = 3, 3

NGINX = """
daemon off; pid {directory}/nginx.pid; error_log {directory}/error.log crit; worker_processes 1;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
  uwsgi_temp_path {directory}; scgi_temp_path {directory}; keepalive_requests 1000000; client_body_buffer_size 64k;
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {directory}/chain.pem; ssl_certificate_key {directory}/key.pem;
    location / {{ default_type application/json; return 200 '{{"ok": true}}'; }}
  }}
}}
"""
POST = 'wrk.method = "POST"\nwrk.body = string.rep("x", 1024)\nwrk.headers["Content-Type"] = "application/x-amz-json-1.0"\nwrk.headers["X-Amz-Target"] = "AmazonSQS.SendMessage"\n'


def free_port() -> int:
    """A port that was free a moment ago: nginx cannot tell which one it took."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextlib.contextmanager
def nginx(directory: Path, cores: str) -> Iterator[tuple[int, Path]]:
    """A TLS upstream. Yields (port, CA file)."""
    authority = trustme.CA()
    ca_file = directory / "upstream-ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    certificate = authority.issue_cert("*.us-east-1.amazonaws.com", "localhost")
    certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
    for number, pem in enumerate(certificate.cert_chain_pems):
        pem.write_to_path(str(directory / "chain.pem"), append=number > 0)
    port = free_port()
    config = directory / "nginx.conf"
    config.write_text(NGINX.format(directory=directory, port=port))
    server = subprocess.Popen(["taskset", "-c", cores, "nginx", "-p", str(directory), "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield port, ca_file
    finally:
        server.terminate()
        server.wait()


def wait_for_port(port: int) -> None:
    """Until it accepts."""
    import socket
    import time

    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}")


@contextlib.contextmanager
def bare(upstream: int, ca_file: Path, directory: Path, core: str) -> Iterator[int]:
    """Bare mitmproxy. Yields its port."""
    confdir = directory / "bare"
    confdir.mkdir(exist_ok=True)
    script = str(Path(__file__).with_name("bare_mitmproxy.py"))
    command = ["taskset", "-c", core, sys.executable, script, str(upstream), str(ca_file), str(confdir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def wrk(url: str, connections: int, directory: Path, core: str) -> float:
    """Requests/s."""
    script = directory / "post.lua"
    script.write_text(POST)
    command = ["taskset", "-c", core, "wrk", "-t1", f"-c{connections}", f"-d{SECONDS}", "--timeout", "10", "-s", str(script), url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out and "timeout 0" not in out:
        raise SystemExit(out)
    found = re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert found, out
    return float(found[1])


def h2load(url: str, directory: Path, core: str) -> float:
    """Requests/s of HTTP/2 clients: 8 connections of 8 streams."""
    body = directory / "body"
    body.write_bytes(b"x" * 1024)
    command = ["taskset", "-c", core, "h2load", "-c8", "-m8", f"-D{SECONDS}", "-d", str(body), url]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", out)
    failed = re.search(r"(\d+) failed, (\d+) errored", out)
    assert found and failed, out
    return float(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cores", default="0", help="cores for the proxies; the rest is for nginx and the load")
    arguments = parser.parse_args()
    missing = [tool for tool in ("nginx", "wrk", "h2load", "taskset") if shutil.which(tool) is None]
    if missing:
        raise SystemExit(f"not measured: {', '.join(missing)} missing (Debian: apt-get install nginx wrk nghttp2-client util-linux)")
    proxy_core, other_core = (arguments.cores, "1") if (os.cpu_count() or 1) > 1 else ("0", "0")
    figures: dict[str, dict[str, float]] = {}
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sigward-bench-")))
        upstream, ca_file = stack.enter_context(nginx(directory, other_core))
        settings = (
            f'[tls]\nca_files = ["{ca_file}"]\nsystem_roots = false\n'
            f'[[route]]\nhost = "*.amazonaws.com"\nconnect = "127.0.0.1:{upstream}"\n'
        )
        environment = bare_environment(AWS_ACCESS_KEY_ID="AKIDBENCH", AWS_SECRET_ACCESS_KEY="a-secret-of-no-one", AWS_REGION="us-east-1")
        sidecar = stack.enter_context(Sidecar(directory, settings, environment, (f"https://{HOST}",)))
        for task in Path(f"/proc/{sidecar.process.pid}/task").iterdir():
            subprocess.run(["taskset", "-cp", proxy_core, task.name], check=True, capture_output=True)
        bare_port = stack.enter_context(bare(upstream, ca_file, directory, proxy_core))
        ours, theirs = sidecar.url("reverse:0") + "/", f"http://127.0.0.1:{bare_port}/"
        for connections in (1, 32, 256):
            runs: dict[str, list[float]] = {"sigward": [], "bare": []}
            for _ in range(ROUNDS):
                runs["sigward"].append(wrk(ours, connections, directory, other_core))
                runs["bare"].append(wrk(theirs, connections, directory, other_core))
            figures[f"HTTP/1.1, {connections} connections"] = {name: statistics.median(values) for name, values in runs.items()}
        tls_ours, tls_theirs = ours.replace("http://", "https://"), theirs.replace("http://", "https://")
        runs = {"sigward": [], "bare": []}
        for _ in range(ROUNDS):
            runs["sigward"].append(h2load(tls_ours, directory, other_core))
            runs["bare"].append(h2load(tls_theirs, directory, other_core))
        figures["HTTP/2 clients, HTTP/1.1 upstream"] = {name: statistics.median(values) for name, values in runs.items()}
    print("| mitmproxy front, one core | sigward, requests/s | bare mitmproxy, requests/s | ratio |\n|---|---|---|---|")
    for name, row in figures.items():
        row["ratio"] = row["sigward"] / row["bare"]
        print(f"| {name} | {row['sigward']:.0f} | {row['bare']:.0f} | {row['ratio']:.2f} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"proxy": figures}, indent=2))


if __name__ == "__main__":
    main()
