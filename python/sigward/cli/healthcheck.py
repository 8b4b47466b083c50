"""`sigward healthcheck`: for container engines, which run it every few seconds.

So it imports neither pydantic nor botocore, and reads no setting but `admin`: flag > SIGWARD_ADMIN > the settings file > default.
"""

import argparse
import http.client
import os
import sys
from urllib.parse import urlsplit

from sigward.errors import UsageError
from sigward.file import find_file

ADMIN = "127.0.0.1:9901"
"""As in `sigward.settings`."""

TIMEOUT = 2.0
"""Seconds for the answer, and for the connection: less than what an engine gives the whole check by default."""

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to ask a listener that is bound to all addresses."""


def healthcheck(arguments: list[str]) -> int:
    """Status 0 if a sigward that runs here is ready, 1 if not; one line on stdout says why. Raises `UsageError`."""
    try:
        ready, why = ask(*admin_address(arguments))
    except (OSError, http.client.HTTPException) as error:
        ready, why = False, f"no answer: {error}"
    sys.stdout.write(f"{why}\n")
    return 0 if ready else 1


def admin_address(arguments: list[str]) -> tuple[str, int]:
    """(host, port) of the admin listener. Raises `UsageError`."""
    place, admin = find_admin(arguments)
    try:
        split = urlsplit(f"//{admin}")
        host, port = split.hostname, split.port
    except ValueError:
        host = port = None
    if not host or not port or split.netloc != admin:
        raise UsageError(
            f"{place}: {admin}: there is no known HOST:PORT to ask.", hint='Set admin to an address with a port, e.g. "127.0.0.1:9901".'
        )
    return EVERYWHERE.get(host, host), port


def find_admin(arguments: list[str]) -> tuple[str, str]:
    """(where it was found, the setting's value). Raises `UsageError`, SystemExit after --help."""
    parser = argparse.ArgumentParser(
        "sigward healthcheck", description="Ask a sigward that runs here whether it is ready.", allow_abbrev=False, exit_on_error=False
    )
    parser.add_argument("--admin", metavar="HOST:PORT", help=f"The admin listener of the sigward to ask (default {ADMIN}).")
    parser.add_argument("--config", metavar="PATH", help="Its settings file.")
    try:
        flags, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UsageError(f"{error}.", hint="See sigward healthcheck --help.") from error
    if unknown:
        raise UsageError(f"unrecognized arguments: {' '.join(unknown)}.", hint="See sigward healthcheck --help.")
    if flags.admin is not None:
        return "--admin", str(flags.admin)
    for name, value in os.environ.items():
        if name.upper() == "SIGWARD_ADMIN":
            return f"environment: {name}", value
    file = find_file(arguments)
    if file is not None and "admin" in file.data:
        return f"{file.path}:{file.line(('admin',))}: admin", str(file.data["admin"])
    return "admin", ADMIN


def ask(host: str, port: int) -> tuple[bool, str]:
    """(ready, why not) as `/readyz` tells it. Raises OSError, `http.client.HTTPException`."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        told = answer.read(1 << 16).decode("utf-8", "replace")
    finally:
        connection.close()
    first, *reasons = told.splitlines() or [f"status {answer.status}"]
    return answer.status == 200, f"{first}: {'; '.join(reasons)}" if reasons else first
