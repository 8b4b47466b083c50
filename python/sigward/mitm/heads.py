"""What an HTTP/1 request must be before mitmproxy reads it: one that no two readers read differently. Called by `internals`.

mitmproxy takes line ends of LF, blanks around the request line, other versions and white space that Python strips. Here a head is
refused that RFC 9112 does not have, whatever it says; so the same is refused as by the native front.
"""

import re
from dataclasses import dataclass
from typing import Any

import h11

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
LINE = re.compile(rb"(%s) ([\x21\x22\x24-\x7e\x80-\xff]++) HTTP/([0-9])\.([0-9])\r\n" % TOKEN)
HEADERS = re.compile(rb"(?:%s:%s\r\n(?:[ \t]%s\r\n)*+)*+\r\n" % (TOKEN, VALUE, VALUE))
FRAMING = re.compile(rb"\n(transfer-encoding|content-length|host):([^\r]*+)(?=\r\n([ \t]?))")
"""In a head in small letters: name, value, and the white space that folds it."""

END = re.compile(rb"\n\r?\n")
"""Where a head ends for the most lenient of readers."""

LENGTH = re.compile(rb"(?:0|[1-9][0-9]{0,18})")
ABSOLUTE = re.compile(rb"https?://[^/?@]+(?:/.*)?", re.IGNORECASE)
"""mitmproxy takes what stands before the first slash for the authority."""

AUTHORITY = re.compile(rb"(?:[^/?@:\[\]]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
PATH = re.compile(rb"[/*][\x21\x22\x24-\x7e\x80-\xff]*")
METHOD = re.compile(TOKEN)
LARGEST_PORT = 2**16 - 1

SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,40}?)[ \t]*+(?:;%s)?\r\n" % VALUE)
TRAILER = re.compile(rb"(%s):(%s)\r\n" % (TOKEN, VALUE))
LARGEST_CHUNK = 2**63 - 1
SIZE_LINE_LIMIT = 4096
TRAILER_LIMIT = 64 << 10


@dataclass(frozen=True)
class Wrong:
    """Why a request is refused. `slug`: the value of `x-sigward-error`."""

    status: int
    slug: str
    why: str


def wrong_head(head: bytes, *, proxy: bool) -> Wrong | None:
    """What is wrong with a head, from its request line to its empty line. `proxy`: it came to a forward listener, outside of CONNECT."""
    line = LINE.match(head)
    if line is None:
        return Wrong(400, "bad-request", "the request line is not that of HTTP/1.1")
    method, target, version = line[1], line[2], line[3] + line[4]
    if version not in (b"10", b"11"):
        return Wrong(505, "bad-version", "only HTTP/1.0, HTTP/1.1 and, over TLS, HTTP/2 are served")
    if not HEADERS.fullmatch(head, line.end()):
        return Wrong(400, "bad-request", "a header line is malformed")
    found = FRAMING.findall(head.lower())
    return (
        wrong_target(method, target, proxy=proxy)
        or wrong_framing(found, old=version == b"10")
        or wrong_host(found, needed=version == b"11" and method != b"CONNECT")
    )


def wrong_target(method: bytes, target: bytes, *, proxy: bool) -> Wrong | None:
    """RFC 9112, section 3.2."""
    if method == b"CONNECT":
        named = AUTHORITY.fullmatch(target)
        if named and 0 < int(named[1]) <= LARGEST_PORT:
            return None
        return Wrong(400, "bad-target", "CONNECT names no host and port")
    if target.startswith(b"/") or target == b"*":
        return Wrong(400, "not-a-proxy-request", "the request target names no host, and this listener is a proxy") if proxy else None
    return None if ABSOLUTE.fullmatch(target) else Wrong(400, "bad-target", "the request target is neither a path nor an http URL")


def wrong_framing(found: list[tuple[bytes, bytes, bytes]], *, old: bool) -> Wrong | None:
    """RFC 9112, section 6.3, without its concessions. `old`: HTTP/1.0, which has no chunks."""
    lengths, codings = values(found, b"content-length"), values(found, b"transfer-encoding")
    if any(fold for _, _, fold in found):
        return Wrong(400, "bad-request", "Host, or a header that frames the body, is folded")
    if lengths and codings:
        return Wrong(400, "bad-length", "content-length stands beside transfer-encoding")
    if len(lengths) > 1 or not all(LENGTH.fullmatch(length) for length in lengths):
        return Wrong(400, "bad-length", "content-length is repeated, or not a number")
    if not codings or (codings == [b"chunked"] and not old):
        return None
    names = {name.strip(b" \t") for coding in codings for name in coding.split(b",")}
    if old or b"" in names or names == {b"chunked"}:
        return Wrong(400, "bad-length", "transfer-encoding is empty, repeated, or in HTTP/1.0")
    return Wrong(501, "unknown-coding", "no transfer coding is served but chunked")


def wrong_host(found: list[tuple[bytes, bytes, bytes]], *, needed: bool) -> Wrong | None:
    """RFC 9112, section 3.2."""
    hosts = values(found, b"host")
    if len(hosts) > 1 or (needed and not hosts):
        return Wrong(400, "bad-host", "there must be one Host header")
    return None


def values(found: list[tuple[bytes, bytes, bytes]], name: bytes) -> list[bytes]:
    """All values of a header that frames, without the white space around them."""
    return [value.strip(b" \t") for key, value, _ in found if key == name]


def is_malformed_http2(headers: list[tuple[bytes, bytes]], *, ended: bool) -> bool:
    """True for a request that h2 passes, and RFC 9113, section 8, does not. `ended`: it has no body."""
    told = dict(headers)
    return (
        not METHOD.fullmatch(told.get(b":method", b""))
        or (told[b":method"] != b"CONNECT" and not PATH.fullmatch(told.get(b":path", b"")))
        or told.get(b":authority") == b""
        or (ended and told.get(b"content-length", b"0") != b"0")
    )


class ChunkReader:
    """Reads a body in chunks, as h11's readers do: called with the buffer, returns an event or None. `trailers`: once it has ended.

    h11 takes sizes of up to 80 bits, control bytes in extensions, and trailers with line ends of LF.
    """

    def __init__(self) -> None:
        self.trailers: list[tuple[bytes, bytes]] = []
        self._read = self._size
        self._left = 0
        self._trailer_bytes = 0

    def __call__(self, buffer: Any) -> Any:
        return self._read(buffer)

    def read_eof(self) -> Any:
        """The client has ended its side."""
        raise h11.RemoteProtocolError("the connection ended within a body in chunks")

    def _line(self, buffer: Any, limit: int) -> bytes | None:
        line = buffer.maybe_extract_next_line()
        if len(buffer if line is None else line) > limit:
            raise h11.RemoteProtocolError("a line among the chunks is too long")
        return None if line is None else bytes(line)

    def _size(self, buffer: Any) -> Any:
        line = self._line(buffer, SIZE_LINE_LIMIT)
        if line is None:
            return None
        told = SIZE_LINE.fullmatch(line)
        if told is None or (size := int(told[1], 16)) > LARGEST_CHUNK:
            raise h11.RemoteProtocolError("a chunk's size is malformed")
        self._left, self._read = size, self._data if size else self._trailer
        return self._read(buffer)

    def _data(self, buffer: Any) -> Any:
        data = buffer.maybe_extract_at_most(self._left)
        if data is None:
            return None
        self._left -= len(data)
        if not self._left:
            self._read = self._end
        return h11.Data(data=data)

    def _end(self, buffer: Any) -> Any:
        if len(buffer) < len(b"\r\n"):
            return None
        if buffer.maybe_extract_at_most(2) != b"\r\n":
            raise h11.RemoteProtocolError("a chunk is longer than it says")
        self._read = self._size
        return self._size(buffer)

    def _trailer(self, buffer: Any) -> Any:
        while line := self._line(buffer, TRAILER_LIMIT - self._trailer_bytes):
            if line == b"\r\n":
                return h11.EndOfMessage()
            trailer = TRAILER.fullmatch(line)
            if trailer is None:
                raise h11.RemoteProtocolError("a trailer is malformed")
            self._trailer_bytes += len(line)
            self.trailers.append((trailer[1], trailer[2].strip(b" \t")))
        return None
