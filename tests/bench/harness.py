"""What the benchmarks share: a fast TLS upstream, sigward and bare mitmproxy as processes, their CPU and memory."""

import argparse
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
    sendfile on;
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        # As AWS's endpoints do; nginx's default depends on its version.
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate {directory}/certificate.pem;
        ssl_certificate_key {directory}/key.pem;
        location / {{ default_type application/x-amz-json-1.0; return 200 '{{"TableNames":[]}}'; }}
        location /files/ {{ root {directory}; }}
        # As S3 does, it answers an upload when it has all of it.
        location /bucket/ {{ proxy_request_buffering on; proxy_pass http://unix:{directory}/sink.sock:/; }}
        # The same without a disk, and without passing it on.
        location /held/ {{
            client_body_buffer_size 65m;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_pass http://unix:{directory}/sink.sock:/;
        }}
    }}
    server {{
        listen unix:{directory}/status.sock;
        location / {{ stub_status; }}
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


def pinned(cpus: str | None, command: Sequence[str]) -> list[str]:
    """`cpus`: "0" or "0,1": the command runs on those alone; None: where the kernel likes."""
    return [need("taskset", "util-linux"), "-c", cpus, *command] if cpus else list(command)


@dataclass
class Upstream:
    """nginx behind TLS. `port`: on 127.0.0.1. `ca_file`: whom to trust. It serves `directory`/files under /files/."""

    port: int
    ca_file: Path
    directory: Path

    def counts(self) -> tuple[int, int]:
        """(connections, requests) that it has taken so far. See ngx_http_stub_status_module."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.directory / "status.sock"))
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            told = b""
            while piece := connection.recv(4096):
                told += piece
        accepted, _, requests = told.split(b"requests\n")[1].split()[:3]
        return int(accepted), int(requests)


def certificate(directory: Path, authority: trustme.CA, *names: str) -> None:
    """A P-256 certificate with its key for nginx: `directory`/certificate.pem and key.pem."""
    issued = authority.issue_cert(*names, key_type=trustme.KeyType.ECDSA)
    (directory / "certificate.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(directory / "key.pem"))


def nginx_command(directory: Path) -> list[str]:
    """nginx with `directory`/nginx.conf, talking on stderr."""
    return [need("nginx", "nginx-light"), "-p", str(directory), "-e", "stderr", "-c", str(directory / "nginx.conf")]


@contextmanager
def upstream(cpus: str | None = None) -> Iterator[Upstream]:
    """Answers any request with a small JSON document; one worker, HTTP/1.1 with keep-alive. `cpus`: see `pinned`."""
    with tempfile.TemporaryDirectory(prefix="sigward-bench-") as name:
        directory = Path(name)
        # nginx's worker may be another user.
        directory.chmod(0o755)
        (directory / "files").mkdir()
        authority = trustme.CA()
        ca_file = directory / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        certificate(directory, authority, "localhost", "127.0.0.1", f"*.{REGION}.amazonaws.com", f"*.s3.{REGION}.amazonaws.com")
        port = free_port()
        (directory / "nginx.conf").write_text(NGINX.format(directory=directory, port=port))
        with Child(pinned(cpus, nginx_command(directory)), clean_environment(), directory) as child:
            child.wait_for("start worker process ")
            yield Upstream(port, ca_file, directory)


@dataclass
class Proxy:
    """A proxy as a process, or several. `addresses`: name of a listener to "127.0.0.1:PORT". `target`: what to CONNECT to."""

    name: str
    child: Child
    addresses: dict[str, str]
    ca_file: Path
    target: str

    def cpu_seconds(self) -> float:
        """User and system time of all its threads so far, in all processes of its session. See proc(5), /proc/pid/stat."""
        return sum(_cpu_seconds(stat) for stat in self._session())

    def thread_seconds(self) -> dict[str, float]:
        """The same of each thread of the first process, by its number."""
        tasks = Path(f"/proc/{self.child.process.pid}/task").iterdir()
        return {task.name: _cpu_seconds((task / "stat").read_text()) for task in tasks}

    def _session(self) -> list[str]:
        # A child has a session of its own (`Child`), and what it starts stays in it.
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdecimal():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    stat = (process / "stat").read_text()
                    if int(stat.rpartition(")")[2].split()[3]) == self.child.process.pid:
                        found.append(stat)
        return found

    def resident(self) -> int:
        """The resident set now, in bytes."""
        return self._status("VmRSS")

    def descriptors(self) -> int:
        """How many it has open."""
        return sum(1 for _ in Path(f"/proc/{self.child.process.pid}/fd").iterdir())

    def reset_peak(self) -> int:
        """Makes the peak begin anew; returns the resident set now, in bytes. See proc(5), /proc/pid/clear_refs."""
        Path(f"/proc/{self.child.process.pid}/clear_refs").write_text("5")
        return self.resident()

    def peak(self) -> int:
        """The largest resident set since `reset_peak`, in bytes."""
        return self._status("VmHWM")

    def _status(self, key: str) -> int:
        for line in Path(f"/proc/{self.child.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
        raise DemoError(f"{key} is not in /proc/pid/status.", hint="This benchmark needs Linux.")


def _cpu_seconds(stat: str) -> float:
    parts = stat.rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


HOSTS = {"dynamodb": DYNAMODB, "s3": S3, "glacier": GLACIER}


@contextmanager
def sigward(
    behind: Upstream, *, cpus: str | None = None, tables: str = "", environment: Mapping[str, str] = CREDENTIALS, **more: Any
) -> Iterator[Proxy]:
    """`sigward serve` with a reverse listener for each host, everything signed.

    `cpus`: see `pinned`. `tables`: more of the settings file, before the route that leads to `behind`. `more`: its first lines.
    """
    with tempfile.TemporaryDirectory(prefix="sigward-bench-") as name:
        directory = Path(name)
        lines = [f"{key} = {json.dumps(value)}" for key, value in more.items()]
        lines += ['listen = "127.0.0.1:0"', 'admin = "off"', 'log_level = "info"', f'ca_dir = "{directory}/ca"']
        lines += ["[tls]", f'ca_files = ["{behind.ca_file}"]', "system_roots = false"]
        for host in HOSTS.values():
            lines += ["[[reverse]]", 'listen = "127.0.0.1:0"', f'upstream = "https://{host}"']
        lines += [tables, "[[route]]", 'host = "*.amazonaws.com"', f'connect = "127.0.0.1:{behind.port}"']
        (directory / "sigward.toml").write_text("\n".join(lines) + "\n")
        command = [sys.executable, "-m", "sigward", "serve", "--config", str(directory / "sigward.toml")]
        with Child(pinned(cpus, command), clean_environment() | dict(environment), directory) as child:
            told = dict(part.split("=", 1) for part in child.wait_for(r"listening (forward=.*)$")[1].split())
            child.wait_for("credentials from")
            addresses = {service: told[f"reverse:{number}"] for number, service in enumerate(HOSTS)}
            # A reverse listener takes TLS on the same port.
            addresses |= {"forward": told["forward"], "tls": addresses["dynamodb"]}
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
    """A Markdown table with a title. `readme`: it is for README.md, too, not for docs/benchmarks.md alone."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    readme: bool = True

    def __str__(self) -> str:
        lines = [f"**{self.title}**", "", "| " + " | ".join(self.columns) + " |", "|" + "---|" * len(self.columns)]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in self.rows)]) + "\n"

    def as_json(self) -> dict[str, Any]:
        """For `report.py`."""
        return {"title": self.title, "columns": list(self.columns), "rows": [list(row) for row in self.rows], "readme": self.readme}


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
