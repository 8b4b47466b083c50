"""What the clients here share: bytes, and how a step is told."""

import hashlib
import sys
from collections.abc import Callable

SMALL, MEDIUM, LARGE = 1000, 300_000, (6 << 20) + 5
PART = 5 << 20
ODD = "a b+c%25/é日/*'()!~&=#.txt"
BUCKET = sys.argv[1] if len(sys.argv) > 1 else ""


def bytes_of(size: int) -> bytes:
    """The same in every client."""
    pattern = bytes((i * 31 + (i >> 8) * 17) & 255 for i in range(65521))
    return (pattern * (size // len(pattern) + 1))[:size]


def digest(data: bytes) -> str:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()[:16]}"


def code(error: Exception) -> str:
    """What an error means: S3's code if the client tells it, else its type."""
    told = getattr(error, "response", None)
    if isinstance(told, dict):
        return str(told.get("Error", {}).get("Code"))
    return type(error).__name__


def step(name: str, doing: Callable[[], object]) -> None:
    try:
        result = doing()
    except Exception as error:
        result = "error " + code(error)
        print(name, error, file=sys.stderr)
    print(f"{name}\t{'' if result is None else result}".replace("\n", " "), flush=True)
