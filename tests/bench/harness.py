"""What the benchmarks share: a fast TLS upstream, sigward and bare mitmproxy as processes, their CPU and memory."""

import argparse
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from sigward.demo.child import Child, clean_environment
from sigward.errors import DemoError

ROOT = Path(__file__).resolve().parents[2]
REGION = "us-east-1"
DYNAMODB = f"dynamodb.{REGION}.amazonaws.com"
S3 = f"s3.{REGION}.amazonaws.com"
GLACIER = f"glacier.{REGION}.amazonaws.com"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIABENCHMARK0000000",
    "AWS_SECRET_ACCESS_KEY": "benchmark" * 4,
    "AWS_REGION": REGION,
}

NGINX = """
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 100000000;
    client_max_body_size 0;
    sendfile on;
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        ssl_certificate {directory}/certificate.pem;
        ssl_certificate_key {directory}/key.pem;
        location / {{ default_type application/x-amz-json-1.0; return 200 '{{"TableNames":[]}}'; }}
        location /files/ {{ root {directory}; }}
        # As S3 does, it answers an upload when it has all of it.
        location /bucket/ {{ proxy_request_buffering on; proxy_pass http://unix:{directory}/sink.sock:/; }}
    }}
    server {{
        listen unix:{directory}/sink.sock;
        location / {{ return 200; }}
    }}
}}
"""


def need(program: str, package: str) -> str:
    """A program's path. Exits with one line that says how to get it."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        sys.exit(f"{program} is missing: apt-get install {package}")
    return found


def free_port() -> int:
    """A port that was free just now; nginx cannot say which it took."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@dataclass
class Upstream:
    """nginx behind TLS. `port`: on 127.0.0.1. `ca_file`: whom to trust. It serves `directory`/files under /files/."""

    port: int
    ca_file: Path
    directory: Path


@contextmanager
def upstream() -> Iterator[Upstream]:
    """Answers any request with a small JSON document; one worker, HTTP/1.1 with keep-alive."""
    with tempfile.TemporaryDirectory(prefix="sigward-bench-") as name:
        directory = Path(name)
        # nginx's worker may be another user.
        directory.chmod(0o755)
        (directory / "files").mkdir()
        authority = trustme.CA()
        ca_file = directory / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        issued = authority.issue_cert("localhost", "*.us-east-1.amazonaws.com", f"*.s3.{REGION}.amazonaws.com")
        for blob in issued.cert_chain_pems:
            blob.write_to_path(str(directory / "certificate.pem"), append=True)
        issued.private_key_pem.write_to_path(str(directory / "key.pem"))
        port = free_port()
        (directory / "nginx.conf").write_text(NGINX.format(directory=directory, port=port))
        command = [
            need("nginx", "nginx-light"),
            "-p",
            str(directory),
            "-e",
            "stderr",
            "-c",
            str(directory / "nginx.conf"),
        ]
        with Child(command, clean_environment(), directory) as child:
            child.wait_for("start worker process ")
            yield Upstream(port, ca_file, directory)


@dataclass
class Proxy:
    """A proxy as a process. `addresses`: name of a listener to "127.0.0.1:PORT". `target`: what to CONNECT to."""

    name: str
    child: Child
    addresses: dict[str, str]
    ca_file: Path
    target: str

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far. See proc(5), /proc/pid/stat."""
        parts = Path(f"/proc/{self.child.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def reset_peak(self) -> int:
        """Makes the peak begin anew; returns the resident set now, in bytes. See proc(5), /proc/pid/clear_refs."""
        Path(f"/proc/{self.child.process.pid}/clear_refs").write_text("5")
        return self._status("VmRSS")

    def peak(self) -> int:
        """The largest resident set since `reset_peak`, in bytes."""
        return self._status("VmHWM")

    def _status(self, key: str) -> int:
        for line in Path(f"/proc/{self.child.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
        raise DemoError(f"{key} is not in /proc/pid/status.", hint="This benchmark needs Linux.")


@contextmanager
def sigward(behind: Upstream, **more: Any) -> Iterator[Proxy]:
    """`sigward serve` with a reverse listener for each host, everything signed."""
    with tempfile.TemporaryDirectory(prefix="sigward-bench-") as name:
        directory = Path(name)
        hosts = {"dynamodb": DYNAMODB, "s3": S3, "glacier": GLACIER}
        lines = [f"{key} = {json.dumps(value)}" for key, value in more.items()]
        lines += ['listen = "127.0.0.1:0"', 'admin = "off"', 'log_level = "info"', f'ca_dir = "{directory}/ca"']
        lines += ["[tls]", f'ca_files = ["{behind.ca_file}"]', "system_roots = false"]
        for host in hosts.values():
            lines += ["[[reverse]]", 'listen = "127.0.0.1:0"', f'upstream = "https://{host}"']
        lines += ["[[route]]", 'host = "*.amazonaws.com"', f'connect = "127.0.0.1:{behind.port}"']
        (directory / "sigward.toml").write_text("\n".join(lines) + "\n")
        command = [sys.executable, "-m", "sigward", "serve", "--config", str(directory / "sigward.toml")]
        with Child(command, clean_environment() | CREDENTIALS, directory) as child:
            told = dict(part.split("=", 1) for part in child.wait_for(r"listening (forward=.*)$")[1].split())
            child.wait_for("credentials from")
            addresses = {service: told[f"reverse:{number}"] for number, service in enumerate(hosts)}
            addresses["forward"] = told["forward"]
            yield Proxy("sigward", child, addresses, directory / "ca" / "mitmproxy-ca-cert.pem", f"{DYNAMODB}:443")


@contextmanager
def bare_mitmproxy(behind: Upstream) -> Iterator[Proxy]:
    """mitmproxy with the same addons and options, no addon of sigward's, in reverse mode to the same upstream."""
    with tempfile.TemporaryDirectory(prefix="sigward-bench-") as name:
        directory = Path(name)
        command = [
            sys.executable,
            "-m",
            "tests.bench.bare_mitmproxy",
            f"https://localhost:{behind.port}",
            str(behind.ca_file),
            str(directory),
        ]
        with Child(command, clean_environment() | {"PYTHONPATH": str(ROOT)}, directory) as child:
            told = child.wait_for(r"^listening (\S+) (\S+)$")
            addresses = {"dynamodb": told[1], "forward": told[2]}
            ca_file = directory / "mitmproxy-ca-cert.pem"
            yield Proxy("bare mitmproxy", child, addresses, ca_file, f"localhost:{behind.port}")


@dataclass
class Table:
    """A Markdown table with a title."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"**{self.title}**", "", "| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in self.rows)]) + "\n"

    def as_json(self) -> dict[str, Any]:
        """For `report.py`."""
        return {"title": self.title, "columns": list(self.columns), "rows": [list(row) for row in self.rows]}


def parser(description: str) -> argparse.ArgumentParser:
    """Flags that all benchmarks share."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--json", type=Path, help="write the tables there, too")
    return made


def finish(tables: Sequence[Table], arguments: argparse.Namespace) -> None:
    """Prints, and writes if asked."""
    for table in tables:
        sys.stdout.write(f"{table}\n")
    if arguments.json:
        arguments.json.write_text(json.dumps({"tables": [table.as_json() for table in tables]}, indent=2) + "\n")


__all__ = [
    "DYNAMODB",
    "REGION",
    "ExitStack",
    "Proxy",
    "Table",
    "Upstream",
    "bare_mitmproxy",
    "finish",
    "need",
    "parser",
    "sigward",
    "upstream",
]
