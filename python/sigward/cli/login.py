"""`sigward login`: a session that an MFA code opens."""

import getpass
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from sigward.credentials import Chain, resolve_region, totp
from sigward.credentials.mfa import device
from sigward.credentials.mfa import login as open_session
from sigward.environ import leave_own_proxy
from sigward.errors import UsageError

if TYPE_CHECKING:
    from sigward.cli.commands import Login


def login(command: "Login") -> int:
    """Returns the exit status. Raises `UsageError`, `CredentialsError`."""
    leave_own_proxy()
    profile = command.profile or os.environ.get("AWS_PROFILE")
    chain = Chain(profile, resolve_region(command.region, profile).asked)
    code = source(command.code_command)
    if command.totp or command.totp_store:
        serial = command.serial or device(chain)
        if command.totp_store:
            totp.store(serial, secret(serial))
        code = totp.code(serial)
    made = open_session(chain, serial=command.serial, duration=command.duration, code=code)
    sys.stderr.write(f"logged in{f' to {made.role_arn}' if made.role_arn else ''} until {made.expires}; a running sigward picks it up\n")
    sys.stdout.write(f"{made.file}\n")
    return 0


def secret(serial: str) -> str:
    """The device's secret, from a person or standard input."""
    return (getpass.getpass(f"MFA secret of {serial} (base32): ") if sys.stdin.isatty() else sys.stdin.readline()).strip()


def source(code_command: str | None) -> Callable[[str], str]:
    """Where the code comes from: a command, a person, standard input."""

    def code(prompt: str) -> str:
        if code_command is not None:
            # The operator's own command.
            ran = subprocess.run(shlex.split(code_command), capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
            if ran.returncode:
                raise UsageError(f"code_command: it ended with {ran.returncode}.", hint="It must print the six digits.")
            text = ran.stdout.strip()
        else:
            text = (getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline()).strip()
        if not (text.isascii() and text.isdigit() and 6 <= len(text) <= 8):
            raise UsageError("code: six digits are expected.", hint="Type what the MFA device shows, or give it on standard input.")
        return text

    return code
