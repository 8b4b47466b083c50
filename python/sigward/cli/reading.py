"""Reads the settings of `serve` and `web` in a process of its own, that takes pydantic away with it when it ends: a quarter of what
an idle sigward would hold. `sigward.cli.serving` calls.

At the start that process is a fork, which has what this one has imported; later, when there are threads, a new one, `python -m`.
"""

import contextlib
import gc
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sigward.errors import SigwardError
from sigward.plan import Plan

if TYPE_CHECKING:
    from sigward.settings import Settings

PATIENCE = 60.0
"""Seconds that reading them again may take."""

Told = Plan | dict[str, str | int] | int
"""What was read, what is wrong, or the status that the process is to end with: after --help."""


def read_at_start(name: str, arguments: Sequence[str]) -> Plan:
    """`name`: the command's. Only while there is one thread. Makes the CA too, if there is none, and what clients trust. Raises
    `SigwardError`, SystemExit."""
    ours, theirs = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        # It lives for a tenth of a second: there is nothing to collect, and no plugin of pydantic's to look for.
        gc.disable()
        os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
        status = 1
        with contextlib.suppress(BaseException):
            told = _read(name, list(arguments))
            if isinstance(told, Plan):
                told = _with_trust(told)
            sys.stdout.flush()
            sys.stderr.flush()
            with os.fdopen(theirs, "wb") as pipe:
                pickle.dump(told, pipe)
            status = 0
        os._exit(status)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return _taken(text)


def read_again(name: str, arguments: Sequence[str]) -> Plan:
    """The same at any time, but for the CA and what clients trust. Raises `SigwardError`."""
    # -P: else modules of the current folder would come before ours.
    command = [sys.executable, "-P", "-m", "sigward.cli.reading", name, *arguments]
    try:
        ran = subprocess.run(command, stdout=subprocess.PIPE, timeout=PATIENCE, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise SigwardError(
            f"the settings could not be read within {PATIENCE:g} s.", hint="Is the settings file a pipe, or on a disk that does not answer?"
        ) from error
    return _taken(ran.stdout)


def _read(name: str, arguments: list[str]) -> Told:
    try:
        return _settings(name, arguments).plan()
    except SigwardError as error:
        return _wrong(error)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return 1


def _settings(name: str, arguments: list[str]) -> "Settings":
    if name == "serve" and any(argument.partition("=")[0] == "--compat" for argument in arguments):
        from sigward import compat

        return compat.read(arguments)
    from sigward.cli.command import SERVING, read

    return read(SERVING[name], f"sigward {name}", arguments)


def _with_trust(plan: Plan) -> Told:
    """Here, so that the process that serves need not import what makes keys and certificates."""
    from sigward.ca import CertificateAuthority
    from sigward.trust import Trust

    try:
        Trust(plan.trust_dir).write(CertificateAuthority(plan.ca_dir, plan.ca_names, plan.ca_key))
    except SigwardError as error:
        return _wrong(error)
    return plan


def _wrong(error: SigwardError) -> dict[str, str | int]:
    return {"message": str(error.args[0]), "hint": error.hint, "slug": error.slug, "fault": error.fault, "exit_code": error.exit_code}


def _taken(text: bytes) -> Plan:
    if not text:
        raise SigwardError("the settings could not be read: the process that reads them has died.", hint="Is there memory left?")
    told: Told = pickle.loads(text)  # noqa: S301 - of our own process, through a pipe
    if isinstance(told, Plan):
        return told
    if isinstance(told, int):
        sys.exit(told)
    error = SigwardError(str(told["message"]), hint=str(told["hint"]))
    error.slug, error.fault, error.exit_code = str(told["slug"]), str(told["fault"]), int(told["exit_code"])
    raise error


if __name__ == "__main__":
    pickled = pickle.dumps(_read(sys.argv[1], sys.argv[2:]))
    sys.stdout.buffer.write(pickled)
