"""Tells the service manager how far `serve` is: sd_notify(3) of systemd, without its library. `sigward.cli.serving` calls.

Where NOTIFY_SOCKET is not set, nobody wants to know.
"""

import logging
import os
import socket
import time

logger = logging.getLogger("sigward")

PATIENCE = 1.0
"""Seconds that a manager which does not read may hold up the event loop."""


def ready() -> None:
    """Everything listens: at the start, and after a reload."""
    _tell("READY=1")


def reloading() -> None:
    """The settings are being read anew; `ready` ends it. With the time that `Type=notify-reload` asks for."""
    _tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    """Requests under way have the grace."""
    _tell("STOPPING=1")


def _tell(state: str) -> None:
    """`NOTIFY_SOCKET`: a path, or `@` and the name of an abstract socket. A message that cannot be sent is logged."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(PATIENCE)
            manager.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        logger.warning("NOTIFY_SOCKET: %s: %s", address, error)
