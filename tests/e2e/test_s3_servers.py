"""Signatures before three verifiers that share no code with ours: moto (Python), s3s (Rust) and OpenStack Swift (Python).

Each checks signatures: that it refuses what was not signed, or signed with another secret, is tested first.
"""

import base64
import binascii
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, unquote_plus
from xml.etree.ElementTree import Element, fromstring

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.config import Config

from sigward.demo.child import Child, clean_environment
from sigward.demo.emulator import Emulator
from tests.e2e.conftest import Answer, ask
from tests.needs import need

REGION = "us-east-1"
BUCKET = "hostile-bucket"
ROOT = Path(__file__).parents[2]

KEYS = {
    "plain": "plain",
    "blanks": "a b  c",
    "plus": "a+b",
    "percent": "100% 50%25",
    "slashes": "a//b",
    "dots": "a/../b/./c",
    "trailing": "folder/",
    "utf8": "/".join(["é€日" * 31] * 4) + "/" + "ü" * 14,
    "marks": "*'()!~",
    "all": "a&b=c?d#e;f,g:h@i$j[k]l",
}
assert len(KEYS["utf8"].encode()) == 1024


@dataclass
class Server:
    """One verifier, running. `route`: how sigward reaches it."""

    name: str
    key: str
    secret: str
    upstream: str
    route: dict[str, str] = field(default_factory=dict)
    tls: dict[str, Any] = field(default_factory=dict)
    direct: str = ""
    """Its address, where plain HTTP reaches it."""


def moto(stack: ExitStack) -> Server:
    emulator = stack.enter_context(Emulator())
    tls = {"ca_files": [str(emulator.ca_file)], "system_roots": False}
    host = f"s3.{emulator.region}.amazonaws.com"
    route = {"host": host, "connect": f"127.0.0.1:{emulator.port}", "region": emulator.region}
    keys = emulator.credentials()
    return Server("moto", keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], f"https://{host}", route, tls)


def s3s(stack: ExitStack) -> Server:
    program = os.environ.get("SIGWARD_S3S_FS") or need("s3s-fs")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sigward-s3s-")))
    command = [str(program), "--host", "127.0.0.1", "--port", "0", "--access-key", "AKIDS3S", "--secret-key", "s3s-secret", str(folder)]
    child = stack.enter_context(Child(command, clean_environment() | {"RUST_LOG": "s3s_fs=info", "NO_COLOR": "1"}, folder))
    address = child.wait_for(r"running at http://(\S+)")[1]
    return Server("s3s", "AKIDS3S", "s3s-secret", f"http://{address}", {"host": "127.0.0.1", "region": REGION}, direct=address)


def swift(stack: ExitStack) -> Server:
    need("openstack-swift")
    python = "/usr/bin/python3"
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sigward-swift-")))
    script = shutil.copy(Path(__file__).with_name("swift_server.py"), folder)
    command = [python, str(script), str(folder / "data"), "test", "tester", "swift-secret"]
    (folder / "data").mkdir()
    child = stack.enter_context(Child(command, clean_environment(), folder))
    address = "127.0.0.1:" + child.wait_for(r"^listening (\d+)")[1]
    return Server("swift", "test:tester", "swift-secret", f"http://{address}", {"host": "127.0.0.1", "region": REGION}, direct=address)


@pytest.fixture(scope="module", params=[moto, s3s, swift], ids=lambda start: start.__name__)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with ExitStack() as stack:
        yield request.param(stack)


class Gateways:
    """Running sigwards before one server, by their route's `payload`."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self.server = server
        self.stack = stack
        self.addresses: dict[tuple[str, str], str] = {}

    def __call__(self, payload: str = "auto", *, secret: str | None = None) -> str:
        """The address of a listener whose requests go to the server, signed."""
        server = self.server
        secret = secret or server.secret
        if (payload, secret) in self.addresses:
            return self.addresses[payload, secret]
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="sigward-e2e-")))
        route = {"service": "s3", "payload": payload} | server.route
        lines = ['listen = "off"', 'admin = "off"', f"ca_dir = {json.dumps(str(folder / 'ca'))}", "[body]", 'hold = "64KiB"']
        lines += ["[[reverse]]", 'listen = "127.0.0.1:0"', f'upstream = "{server.upstream}"']
        lines += ["[tls]", *(f"{name} = {json.dumps(value)}" for name, value in server.tls.items())]
        lines += ["[[route]]", *(f"{name} = {json.dumps(value)}" for name, value in route.items())]
        (folder / "sigward.toml").write_text("\n".join(lines) + "\n")
        command = [sys.executable, "-m", "sigward", "serve", "--config", str(folder / "sigward.toml")]
        environment = clean_environment() | {"AWS_ACCESS_KEY_ID": server.key, "AWS_SECRET_ACCESS_KEY": secret}
        child = self.stack.enter_context(Child(command, environment, folder))
        address = child.wait_for(r"listening reverse:0=(\S+)")[1]
        self.addresses[payload, secret] = address
        return address


@pytest.fixture(scope="module")
def gateways(server: Server) -> Iterator[Gateways]:
    with ExitStack() as stack:
        gateways = Gateways(server, stack)
        made = ask(gateways(), "PUT", f"/{BUCKET}")
        assert made.status == 200, made
        yield gateways


def path(key: str) -> str:
    """As a careful client writes it."""
    return f"/{BUCKET}/" + quote(key, safe="/~")


LIMITS = {
    # A file server: a name that ends in a slash is a folder's, and a path has an end.
    ("s3s", "trailing"): (400, "UnexpectedContent"),
    ("s3s", "utf8"): (500, "InternalError"),
}
"""What a server cannot keep, and how it says so: an answer that comes after the signature was found right."""

UNLISTED = {("s3s", "slashes"), ("s3s", "dots")}
"""A file's path has neither empty segments nor dots: found under its key, listed under its path."""

NO_CHUNKS = (501, "NotImplemented")
"""Swift's answer to bodies in chunks, signed or not."""


def texts(answer: Answer, tag: str) -> list[str]:
    """Those of all the answer's elements of that name, whatever their namespace."""
    root: Element = fromstring(answer.body) if answer.body.startswith(b"<") else Element("nothing")  # noqa: S314 (ours)
    return [element.text or "" for element in root.iter() if element.tag.rpartition("}")[2] == tag]


def code(answer: Answer) -> str:
    """The <Code> of an error."""
    return "".join(texts(answer, "Code"))


def test_what_is_not_signed_is_refused(server: Server, gateways: Gateways) -> None:
    wrong = ask(gateways(secret="not-the-secret"), "PUT", path("refused"), body=b"x")
    assert (wrong.status, code(wrong)) == (403, "SignatureDoesNotMatch"), wrong
    if server.direct:
        # Swift takes what has no signature for its own protocol.
        assert ask(server.direct, "PUT", path("refused"), body=b"x").status in (400, 403)
    assert ask(gateways(), "GET", path("refused")).status == 404


@pytest.mark.parametrize("payload", ["auto", "chunked"])
@pytest.mark.parametrize("name", KEYS)
def test_hostile_keys(server: Server, gateways: Gateways, name: str, payload: str) -> None:
    key = KEYS[name]
    call = partial(ask, gateways(payload))
    content = f"{name} by {payload}".encode()
    put = call("PUT", path(key), body=content)
    limit = NO_CHUNKS if (server.name, payload) == ("swift", "chunked") else LIMITS.get((server.name, name))
    if limit:
        assert (put.status, code(put)) == limit, put
        return
    assert put.status == 200, put
    got = call("GET", path(key))
    assert (got.status, got.body) == (200, content), got
    assert call("HEAD", path(key)).headers["content-length"] == str(len(content))
    listed = call("GET", f"/{BUCKET}?list-type=2&encoding-type=url&prefix={quote(key, safe='')}")
    assert listed.status == 200, listed
    # Percent-encoded, with a plus for a blank or without; or not at all.
    names = {decoded for name in texts(listed, "Key") for decoded in (name, unquote(name), unquote_plus(name))}
    assert (key in names) == ((server.name, name) not in UNLISTED), names
    copied = call("PUT", path("copies/" + name), {"x-amz-copy-source": f"/{BUCKET}/" + quote(key, safe="/~")})
    assert copied.status == 200, copied
    assert call("GET", path("copies/" + name)).body == content
    assert call("DELETE", path(key)).status == 204
    assert call("GET", path(key)).status == 404


@pytest.mark.parametrize("payload", ["auto", "hash", "unsigned", "chunked"])
def test_large_bodies(server: Server, gateways: Gateways, payload: str) -> None:
    call = partial(ask, gateways(payload))
    content = os.urandom(3 << 20)
    put = call("PUT", path("large"), body=content)
    if (server.name, payload) == ("swift", "chunked"):
        assert (put.status, code(put)) == NO_CHUNKS
        return
    assert put.status == 200, put
    assert call("GET", path("large")).body == content


def in_chunks(content: bytes, *, signed: bool) -> tuple[dict[str, str], bytes]:
    """Headers and body as an SDK with made-up keys sends them: chunks, then a checksum."""
    signature = ";chunk-signature=" + "0" * 64 if signed else ""
    pieces = [content[at : at + 65_536] for at in range(0, len(content), 65_536)]
    body = b"".join(f"{len(piece):x}{signature}\r\n".encode() + piece + b"\r\n" for piece in pieces) + f"0{signature}\r\n".encode()
    checksum = base64.b64encode(binascii.crc32(content).to_bytes(4, "big")).decode()
    body += f"x-amz-checksum-crc32:{checksum}\r\n".encode()
    body += b"x-amz-trailer-signature:" + b"0" * 64 + b"\r\n\r\n" if signed else b"\r\n"
    keyword = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" if signed else "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    return {
        "x-amz-content-sha256": keyword,
        "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": str(len(content)),
        "x-amz-trailer": "x-amz-checksum-crc32",
        "x-amz-sdk-checksum-algorithm": "CRC32",
    }, body


@pytest.mark.parametrize("signed", [True, False], ids=["dummy-signed", "unsigned"])
@pytest.mark.parametrize("payload", ["auto", "hash", "chunked"])
@pytest.mark.parametrize("size", [10, 300_000])
def test_chunks_with_trailers(server: Server, gateways: Gateways, payload: str, size: int, signed: bool) -> None:
    call = partial(ask, gateways(payload))
    content = os.urandom(size)
    headers, body = in_chunks(content, signed=signed)
    put = call("PUT", path("chunks"), headers, body)
    if server.name == "swift" and payload != "hash":
        assert (put.status, code(put)) == NO_CHUNKS
        return
    assert put.status == 200, put
    assert call("GET", path("chunks")).body == content


def test_multipart(server: Server, gateways: Gateways) -> None:
    key, call = KEYS["blanks"] + "/parts", partial(ask, gateways())
    begun = call("POST", path(key) + "?uploads")
    assert begun.status == 200, begun
    [upload] = texts(begun, "UploadId")
    parts = [os.urandom(5 << 20), b"the last"]
    tags = []
    for number, part in enumerate(parts, 1):
        sent = call("PUT", f"{path(key)}?partNumber={number}&uploadId={quote(upload, safe='')}", body=part)
        assert sent.status == 200, sent
        tags.append(sent.headers["etag"])
    listed = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>" for number, tag in enumerate(tags, 1))
    whole = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
    done = call("POST", f"{path(key)}?uploadId={quote(upload, safe='')}", {"content-type": "application/xml"}, whole)
    assert done.status == 200, done
    assert call("GET", path(key)).body == b"".join(parts)


def test_presigned_urls_pass(server: Server, gateways: Gateways) -> None:
    """Made by boto3 with the server's keys: sigward, which has others, must leave them alone."""
    if server.name == "moto":
        pytest.skip("moto cannot verify presigned URLs while it checks permissions")
    ask(gateways(), "PUT", path("presigned"), body=b"presigned")
    client = boto3.client(
        "s3",
        endpoint_url=server.upstream,
        region_name=REGION,
        aws_access_key_id=server.key,
        aws_secret_access_key=server.secret,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    url = client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "presigned"}, ExpiresIn=60)
    target = url.removeprefix(server.upstream)
    got = ask(gateways(secret="not-the-secret"), "GET", target)
    assert (got.status, got.body) == (200, b"presigned"), got
    spoiled = ask(gateways(secret="not-the-secret"), "GET", target[:-1] + ("0" if target[-1] != "0" else "1"))
    assert spoiled.status == 403
