"""The demo's run and its table."""

import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sigward.demo.calls import BUCKET, Result, Ways, all_calls
from sigward.demo.clients import find
from sigward.demo.emulator import Emulator
from sigward.demo.gateway import Gateway
from sigward.demo.tunnel import Tunnel
from sigward.environ import DUMMY_KEY, DUMMY_SECRET
from sigward.errors import DemoError

NEEDED = ("boto3", "awscli", "moto", "werkzeug", "flask", "trustme")


def main(keep: bool = False, front: str = "mitmproxy") -> int:
    """Runs the demo; `keep`: leaves it running afterwards until Ctrl-C or SIGTERM. `front`: as in the settings. Returns 0 if all held, 1 if
    not.

    Raises `DemoError` when a part is missing or does not start.
    """
    check_parts()
    # A table in a log should not be folded at 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    with stop_on_sigterm():
        console.print("starting an AWS emulator that checks signatures, and sigward before it …")
        with Emulator() as emulator, Gateway(emulator, front=front) as gateway, Tunnel(emulator.port) as tunnel:
            gateway.wait_ready()
            ways = Ways(emulator, gateway, tunnel.url)
            results = [ways.try_call(call) for call in all_calls(emulator.region)]
            console.print(table(results))
            failed = [result for result in results if result.faults]
            console.print(verdict(results, failed))
            if keep:
                invite(console, invitation(emulator, gateway))
    return 1 if failed else 0


def check_parts() -> None:
    """Raises `DemoError` that names what is not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise DemoError(f"the demo's parts are not installed: {', '.join(missing)}.", hint="pip install 'sigward[demo]'")
    find("curl")


class stop_on_sigterm:  # noqa: N801 - reads as what it does in a `with`
    """Within it, SIGTERM ends the demo as Ctrl-C does: children are stopped, files removed."""

    def __enter__(self) -> None:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._before = signal.signal(signal.SIGTERM, self._raise)

    @staticmethod
    def _raise(*_: object) -> None:
        raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._before)


def invite(console: Console, text: str) -> None:
    """Shows what can be tried; returns on Ctrl-C or SIGTERM, which is how this is meant to end."""
    try:
        console.print(Text(text), soft_wrap=True)
        signal.pause()
    except KeyboardInterrupt:
        console.print("ending …")


def table(results: Sequence[Result]) -> Table:
    """One line a call."""
    made = Table(
        title="unsigned calls, without sigward and with it (ms: as the client saw the latter, its start included)",
        title_justify="left",
    )
    for column in ("call", "client", "through", "without sigward", "with sigward", "signed as"):
        made.add_column(column, overflow="fold")
    made.add_column("ms", justify="right")
    for result in results:
        call = result.call
        made.add_row(
            call.title,
            call.client_name,
            call.mode if call.mode in ("HTTPS_PROXY", "http:// proxy", "Host header") else "endpoint URL",
            Text(
                f"refused: {result.refused.code}" if not result.refused.ok else "accepted",
                "yellow" if not result.refused.ok else "red",
            ),
            Text(accepted_text(result), "red" if result.faults else "green"),
            result.signed,
            f"{result.accepted.seconds * 1000:.0f}",
        )
    return made


def accepted_text(result: Result) -> str:
    """What became of the call with sigward."""
    if result.faults:
        return "FAILED"
    statuses = [str(request.status) for request in result.arrived]
    return "accepted: " + ", ".join(statuses)


def verdict(results: Sequence[Result], failed: Sequence[Result]) -> Text:
    """The last word."""
    if not failed:
        return Text(
            f"All {len(results)} calls were refused without sigward and accepted with it.",
            "green",
        )
    lines = [f"{len(failed)} of {len(results)} calls failed:"]
    for result in failed:
        lines += [f"  {result.call.title} by {result.call.client_name}, {result.call.mode}: {fault}" for fault in result.faults]
    return Text("\n".join(lines), "red")


def invitation(emulator: Emulator, gateway: Gateway) -> str:
    """Commands to paste."""
    forward, ca_file, region = gateway.url("forward"), shlex.quote(str(gateway.ca_file)), emulator.region
    return f"""
It keeps running; Ctrl-C ends it. In another terminal:

  # curl, unsigned, through the proxy
  curl -x {forward} --cacert {ca_file} https://{BUCKET}.s3.{region}.amazonaws.com/
  curl -x {forward} --cacert {ca_file} -d 'Action=GetCallerIdentity&Version=2011-06-15' https://sts.{region}.amazonaws.com/

  # curl, unsigned, at an endpoint URL
  curl {gateway.url("s3")}/{BUCKET}/plain.txt
  curl {gateway.url("dynamodb")}/ -d '{{}}' -H 'content-type: application/x-amz-json-1.0' \\
      -H 'x-amz-target: DynamoDB_20120810.ListTables'

  # the AWS CLI, or any SDK, with keys that are nobody's
  export HTTPS_PROXY={forward} AWS_CA_BUNDLE={ca_file}
  export AWS_ACCESS_KEY_ID={DUMMY_KEY} AWS_SECRET_ACCESS_KEY={DUMMY_SECRET} AWS_DEFAULT_REGION={region}
  {shlex.quote(sys.executable)} -m awscli s3 ls s3://{BUCKET}

  # what sigward counted
  curl {gateway.url("admin")}/metrics
"""
