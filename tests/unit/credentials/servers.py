"""Small real HTTP servers that stand for EC2's and ECS's metadata services, and for STS."""

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

ROLE = "tests-role"


def keys(name: str, *, minutes: float = 60, **more: str) -> dict[str, str]:
    """Temporary keys as the metadata services give them; `name` tells which they are."""
    expires = datetime.now(UTC) + timedelta(minutes=minutes)
    return {
        "AccessKeyId": f"ASIA{name.upper()}",
        "SecretAccessKey": f"{name}-secret",
        "Token": f"{name}-token",
        "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        **more,
    }


class Metadata(ThreadingHTTPServer):
    """`seen`: (method, path, status) of every request, in order. `answer`: what role or container gets."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler], answer: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.answer = answer
        self.seen: list[tuple[str, str, int]] = []
        self.tokens: set[str] = set()
        self.authorization: str | None = None
        self.failing: tuple[int, str] | None = None

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT"""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """What both have in common."""

    server: Metadata

    def reply(self, status: int, body: str = "") -> None:
        """Notes and answers."""
        self.server.seen.append((self.command, self.path, status))
        self.send_response(status)
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Imds(Handler):
    """Version 2 alone: a PUT with a time to live gives a token; without a good token, 401."""

    def do_PUT(self) -> None:
        if self.path != "/latest/api/token" or not self.headers.get("x-aws-ec2-metadata-token-ttl-seconds"):
            return self.reply(400)
        token = secrets.token_hex(8)
        self.server.tokens.add(token)
        return self.reply(200, token)

    def do_GET(self) -> None:
        if self.headers.get("x-aws-ec2-metadata-token") not in self.server.tokens:
            return self.reply(401)
        base = "/latest/meta-data/iam/security-credentials/"
        if self.path == base:
            return self.reply(200, ROLE)
        if self.path == base + ROLE:
            return self.reply(200, json.dumps({"Code": "Success", "Type": "AWS-HMAC", **self.server.answer}))
        if self.path == "/latest/meta-data/placement/region":
            return self.reply(200, "eu-west-3")
        return self.reply(404)


class Ecs(Handler):
    """The container credentials endpoint; with `authorization`, only for those who know it."""

    def do_GET(self) -> None:
        if self.server.authorization is not None and self.headers.get("authorization") != self.server.authorization:
            return self.reply(401, "unauthorized")
        if self.server.failing is not None:
            return self.reply(*self.server.failing)
        return self.reply(200, json.dumps(self.server.answer))


@contextmanager
def serving(handler: type[Handler], answer: dict[str, str]) -> Iterator[Metadata]:
    """A server while the block runs."""
    server = Metadata(handler, answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


ANSWER = """<{0}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{0}Result><Credentials>
<AccessKeyId>{2}</AccessKeyId><SecretAccessKey>{3}</SecretAccessKey><SessionToken>{4}</SessionToken><Expiration>{1}</Expiration></Credentials></{0}Result></{0}Response>"""

DENIED = """<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User is not authorized to perform: sts:AssumeRole
</Message></Error></ErrorResponse>"""


class Sts(ThreadingHTTPServer):
    """Answers AssumeRole and its kin as STS does, and keeps what it was told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), StsHandler)
        self.told: list[dict[str, str]] = []
        self.deny = False
        self.keys = ("ASIAASSUMED", "assumed-secret", "assumed-token")


class StsHandler(BaseHTTPRequestHandler):
    """STS's answers."""

    server: Sts

    def do_POST(self) -> None:
        body = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
        told = {name: values[0] for name, values in body.items()}
        self.server.told.append(told | {"authorization": self.headers.get("authorization", "")})
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        status, text = (403, DENIED) if self.server.deny else (200, ANSWER.format(told["Action"], expires, *self.server.keys))
        self.send_response(status)
        self.send_header("content-type", "text/xml")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""
