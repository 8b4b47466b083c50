"""`sigward demo --throttle`: a service that allows 20 calls a second, hammered by eight curl loops, without sigward and with it."""

import json
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sigward.demo.child import clean_environment
from sigward.demo.clients import find
from sigward.demo.gateway import Gateway
from sigward.errors import DemoError

RATE = 20.0
LOOPS = 8
SECONDS = 8.0
HOST = "dynamodb.us-east-1.amazonaws.com"
CALL = ("-H", "x-amz-target: DynamoDB_20120810.ListTables", "-H", "content-type: application/x-amz-json-1.0", "-d", "{}")
BARS = "▁▂▃▄▅▆▇█"


class Limited:
    """A TLS server under DynamoDB's name with a token bucket, as AWS has it; what is over it is throttled.

    Starts with `with`. It has what `Gateway` needs of an upstream.
    """

    region = "us-east-1"

    def __init__(self, rate: float = RATE) -> None:
        import trustme

        self._directory = tempfile.TemporaryDirectory(prefix="sigward-limited-")
        self.ca_file = Path(self._directory.name) / "ca.pem"
        authority = trustme.CA(organization_name="sigward demo: stands in for AWS")
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(context)
        self.bucket = Bucket(rate)
        handler = type("Bound", (Handler,), {"bucket": self.bucket})
        self._server = QuietServer(("127.0.0.1", 0), handler)
        self._server.context = context
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def credentials(self) -> dict[str, str]:
        """It looks at no signature: any keys will do."""
        return {"AWS_ACCESS_KEY_ID": "AKIDDEMO", "AWS_SECRET_ACCESS_KEY": "this-server-checks-nothing"}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._directory.cleanup()


class QuietServer(ThreadingHTTPServer):
    """TLS by connection, in the connection's own thread; clients that leave are no news."""

    daemon_threads = True
    request_queue_size = 256
    context: ssl.SSLContext

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            wrapped = self.context.wrap_socket(request, server_side=True)  # type: ignore[arg-type]
        except OSError:
            self.shutdown_request(request)  # type: ignore[arg-type]
            return
        super().process_request_thread(wrapped, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing."""


@dataclass
class Bucket:
    """Calls a second, with as many at once."""

    rate: float
    tokens: float = 0.0
    last: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> bool:
        """False: the call is over the limit."""
        with self.lock:
            now = time.monotonic()
            self.tokens, self.last = min(self.rate, self.tokens + (now - self.last) * self.rate), now
            if self.tokens < 1:
                return False
            self.tokens -= 1
            return True


class Handler(BaseHTTPRequestHandler):
    """ListTables, if the bucket lets it."""

    protocol_version = "HTTP/1.1"
    bucket: ClassVar[Bucket]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", "0")))
        served = self.bucket.take()
        refusal = {"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException", "message": "Rate exceeded"}
        body = json.dumps({"TableNames": []} if served else refusal).encode()
        self.send_response(200 if served else 400)
        self.send_header("content-type", "application/x-amz-json-1.0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@dataclass
class Run:
    """Eight loops of one kind: what each second brought, by status."""

    title: str
    command: list[str]
    seconds: list[Counter[str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    attempts: int = 0

    def hammer(self, seconds: float, show: Live, view: "View") -> None:
        """Runs the loops for so long and keeps the view fresh."""
        began = time.monotonic()
        end = began + seconds
        loops = [threading.Thread(target=self._loop, args=(began, end), daemon=True) for _ in range(LOOPS)]
        for loop in loops:
            loop.start()
        while any(loop.is_alive() for loop in loops):
            show.update(view.table())
            time.sleep(0.2)
        show.update(view.table())

    def _loop(self, began: float, end: float) -> None:
        environment = clean_environment()
        while time.monotonic() < end:
            ran = subprocess.run(self.command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - curl
            status, _, attempts = ran.stdout.strip().rpartition("\n")[2].partition(" ")
            with self.lock:
                second = int(time.monotonic() - began)
                while len(self.seconds) <= second:
                    self.seconds.append(Counter())
                self.seconds[second][status or "000"] += 1
                self.attempts += int(attempts) if attempts.isdigit() else 1

    def totals(self) -> Counter[str]:
        """Of all seconds."""
        with self.lock:
            return sum(self.seconds, Counter())


@dataclass
class View:
    """Both runs side by side."""

    runs: list[Run]

    def table(self) -> Table:
        """As it stands."""
        made = Table(title=f"{LOOPS} curl loops, a service that allows {RATE:.0f} calls a second", title_justify="left")
        made.add_column("")
        for run in self.runs:
            made.add_column(run.title)
        totals = [run.totals() for run in self.runs]
        made.add_row("served, each second", *(line(run, "200", "green") for run in self.runs))
        made.add_row("throttled, each second", *(line(run, "400", "red") for run in self.runs))
        made.add_row("served", *(Text(str(total["200"]), "green") for total in totals))
        made.add_row("clients saw throttling", *(Text(str(total["400"]), "red" if total["400"] else "green") for total in totals))
        made.add_row("other failures", *(str(total.total() - total["200"] - total["400"]) for total in totals))
        return made


def line(run: Run, status: str, style: str) -> Text:
    """A bar for each second, and the last number."""
    with run.lock:
        counts = [second[status] for second in run.seconds]
    most = max([*counts, RATE])
    bars = "".join(BARS[min(int(count / most * len(BARS)), len(BARS) - 1)] if count else " " for count in counts)
    return Text(f"{bars} {counts[-1] if counts else ''}", style)


def throttle(seconds: float = SECONDS) -> int:
    """Returns 0 if no client saw throttling with sigward, 1 if one did. Raises `DemoError`."""
    if shutil.which("curl") is None:
        raise DemoError("curl is not installed.", hint="apt install curl")
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    curl = [find("curl"), "-s", "-o", "/dev/null", "-w", "\n%{http_code} %header{x-sigward-attempts}", "-m", "60", *CALL]
    with Limited() as limited:
        pace = [{"operation": "dynamodb:ListTables", "rate": RATE, "burst": 1}]
        with Gateway(limited, pace=pace) as gateway:
            gateway.wait_ready()
            direct = [*curl, "--cacert", str(limited.ca_file), "--connect-to", f"{HOST}:443:127.0.0.1:{limited.port}", f"https://{HOST}/"]
            through = [*curl, "-x", gateway.url("forward"), "--cacert", str(gateway.ca_file), f"https://{HOST}/"]
            view = View([Run("without sigward", direct), Run("with sigward", through)])
            with Live(view.table(), console=console, refresh_per_second=8, transient=not sys.stdout.isatty()) as show:
                for run in view.runs:
                    run.hammer(seconds, show, view)
            if not sys.stdout.isatty():
                console.print(view.table())
    without, with_it = (run.totals() for run in view.runs)
    if with_it["400"] or with_it.total() != with_it["200"]:
        console.print(Text("With sigward, too, a client saw a failure.", "red"))
        return 1
    asked = without.total()
    console.print(
        Text(
            f"Without sigward {without['400']} of {asked} calls were throttled; with it none of {with_it['200']} was, at "
            f"{with_it['200'] / seconds:.1f} a second.",
            "green",
        )
    )
    return 0
