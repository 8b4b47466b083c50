"""Writes the table: bytes that depend on botocore's data alone.

    magic "SIGWARDK" · u16 version · u32 length of what follows the checksum · SHA-256 of it · source · services · hosts · regions

All numbers are little-endian; a text is a u16 and its UTF-8 bytes; a list is a u16 and its items. The reader is
rust/gateway/src/knowledge.rs; its layout and VERSION change together.
"""

import hashlib
import struct
from collections.abc import Iterable

from sigward.knowledge.hosts import endpoints, patterns, regions
from sigward.knowledge.models import TOKEN, Operation, Service, services

MAGIC = b"SIGWARDK"
VERSION = 5


def build(known: Iterable[Service] | None = None) -> bytes:
    """The table of these services; None: of all that the installed botocore knows."""
    import botocore

    # Where two models describe one API (rds, docdb, neptune), the one that bears the signing name speaks for it.
    known = sorted(services() if known is None else known, key=lambda service: (service.name != service.signing_name, service.name))
    parts = [_text(f"botocore {botocore.__version__}"), struct.pack("<H", len(known))]
    for service in known:
        parts += [_text(service.name), _text(service.signing_name), _text(service.endpoint_prefix), _text(service.target_prefix)]
        parts.append(_text(service.metadata["apiVersion"]))
        parts.append(struct.pack("<H", len(service.errors)))
        for code, kind in service.errors:
            parts += [_text(code), struct.pack("<B", kind)]
        parts.append(struct.pack("<BH", service.protocols, len(service.operations)))
        parts += map(_operation, service.operations)
    rows = patterns(endpoints(known), known)
    parts.append(struct.pack("<H", len(rows)))
    for row in rows:
        parts += [_text(row.pattern), struct.pack("<BH", row.flags, len(row.scopes))]
        for signing_name, region, variant in row.scopes:
            parts += [_text(signing_name), _text(region), struct.pack("<B", variant)]
    names = regions()
    parts.append(struct.pack("<H", len(names)))
    parts += map(_text, names)
    payload = b"".join(parts)
    return MAGIC + struct.pack("<HI", VERSION, len(payload)) + hashlib.sha256(payload).digest() + payload


def _operation(operation: Operation) -> bytes:
    parts = [_text(operation.name), struct.pack("<B", operation.flags), _text(operation.method), _text(operation.path)]
    parts.append(struct.pack("<H", len(operation.query)))
    for name, value in operation.query:
        parts += [_text(name), struct.pack("<B", value is not None), _text(value or "")]
    parts.append(struct.pack("<H", len(operation.headers)))
    parts += map(_text, operation.headers)
    if operation.flags & TOKEN:
        parts.append(_text(operation.token))
    return b"".join(parts)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<H", len(data)) + data
