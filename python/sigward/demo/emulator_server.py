"""The emulator's process: moto's server behind TLS, and before it a front that is as strict as AWS where moto is not.

Run by `Emulator` as `python -m sigward.demo.emulator_server CERTIFICATE KEY`; says `listening PORT`, serves until its
stdin ends. moto cannot check presigned URLs with its IAM checks on.
moto checks signatures with botocore's code and then the caller's IAM policies. The front before it

- refuses what carries no signature at all, in the shape and with the status that AWS uses;
- refuses a signature that leaves `host` or an `x-amz-*` header out, or whose payload hash is not the body's;
- answers 503 as often as a request's `x-emulator-fail: NAME/TIMES` asks for, and only then passes it on;
- keeps a request with `x-emulator-hold: NAME` waiting until it is released;
- keeps a log of what arrived, which `Emulator.requests` reads.
"""

import hashlib
import io
import json
import os
import re
import ssl
import sys
import threading
import traceback
import uuid
from collections.abc import Callable, Iterable
from typing import Any

CONTROL_HOST = "emulator.test"
"""The Host that the emulator's own questions go to; no name of AWS's."""

FAIL_HEADER = "x-emulator-fail"
HOLD_HEADER = "x-emulator-hold"

HOLD_SECONDS = 60.0
"""A held request goes on by itself after this, so that a test that fails does not hang."""

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def service_of(host: str) -> str:
    """What a host name says: "s3", "dynamodb", "sqs", …"""
    labels = host.split(":")[0].split(".")
    return "s3" if "s3" in labels else labels[0]


def refusal(environ: Environ, code: str, message: str, status: str = "403 Forbidden") -> tuple[str, str, bytes]:
    """(status, content type, body) in the error shape of the service's protocol."""
    service = service_of(environ.get("HTTP_HOST", ""))
    request_id = uuid.uuid4()
    if "HTTP_X_AMZ_TARGET" in environ:
        body = json.dumps({"__type": f"com.amazon.coral.service#{code}", "message": message})
        return "400 Bad Request" if status.startswith("4") else status, "application/x-amz-json-1.0", body.encode()
    if service == "s3":
        body = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>{request_id}</RequestId></Error>"
    elif service == "ec2":
        body = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
            f"<RequestID>{request_id}</RequestID></Response>"
        )
    else:
        body = (
            f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    return status, "text/xml", b'<?xml version="1.0" encoding="UTF-8"?>\n' + body.encode()


def unsigned(environ: Environ) -> tuple[str, str, bytes] | None:
    """The refusal of a request without a signature, as each service puts it."""
    if "HTTP_AUTHORIZATION" in environ or "X-Amz-Signature=" in environ.get("QUERY_STRING", ""):
        return None
    if "HTTP_X_AMZ_TARGET" in environ:
        return refusal(environ, "MissingAuthenticationTokenException", "Request is missing Authentication Token")
    if service_of(environ.get("HTTP_HOST", "")) == "s3":
        return refusal(environ, "AccessDenied", "Access Denied")
    return refusal(environ, "MissingAuthenticationToken", "Request is missing Authentication Token")


def badly_signed(environ: Environ, headers: list[tuple[str, str]], body: bytes) -> tuple[str, str, bytes] | None:
    """The refusal of a signature that covers too little. See 'Create a signed AWS API request', step 1."""
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    if not authorization.startswith("AWS4-HMAC-SHA256 "):
        return None
    signed = authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    names = {name.lower() for name, _ in headers}
    left_out = sorted(name for name in names if name not in signed and (name == "host" or name.startswith("x-amz-")))
    if left_out:
        return refusal(environ, "AccessDenied", f"There were headers present in the request which were not signed: {left_out}")
    declared = environ.get("HTTP_X_AMZ_CONTENT_SHA256")
    service = authorization.partition("Credential=")[2].split("/")[3:4]
    if declared is None:
        missing = service == ["s3"]
        return refusal(environ, "MissingContentSHA256", "x-amz-content-sha256 is missing") if missing else None
    chunked = "aws-chunked" in environ.get("HTTP_CONTENT_ENCODING", "")
    if chunked != declared.startswith("STREAMING-"):
        return refusal(environ, "InvalidArgument", "x-amz-content-sha256 and the body's aws-chunked encoding do not agree")
    if declared.startswith(("STREAMING-", "UNSIGNED-PAYLOAD")) or declared == hashlib.sha256(body).hexdigest():
        return None
    return refusal(
        environ,
        "XAmzContentSHA256Mismatch",
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    )


def reshaped(environ: Environ, status: str, answer: bytes) -> tuple[str, str, bytes] | None:
    """moto refuses JSON calls in XML; AWS does not, and clients show the code only if they can read it."""
    code = re.search(rb"<Code>(\w+)</Code>", answer)
    if "HTTP_X_AMZ_TARGET" not in environ or code is None:
        return None
    message = re.search(rb"<Message>([^<]*)</Message>", answer)
    return refusal(environ, code[1].decode(), message[1].decode() if message else "", status)


class Hold:
    """A request that waits. `arrived`: it is here. `released`: it may go on."""

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.released = threading.Event()


class Front:
    """A WSGI application before moto's. Threads share it."""

    def __init__(self, behind: Callable[[Environ, StartResponse], Iterable[bytes]]) -> None:
        self.behind = behind
        self.log: list[dict[str, Any]] = []
        self.failures: dict[str, int] = {}
        self.holds: dict[str, Hold] = {}
        self.lock = threading.Lock()
        # moto counts the calls that it lets in unchecked without a lock of its own.
        self.behind_lock = threading.Lock()
        self.body = b""
        """Of the request that moto is at."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        headers: list[tuple[str, str]] = environ["emulator.headers"]
        if environ.get("HTTP_HOST", "").split(":")[0] == CONTROL_HOST:
            return self.control(environ["PATH_INFO"], start_response)
        body = environ["wsgi.input"].read() if environ.get("wsgi.input_terminated") else read_exactly(environ)
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        entry = {
            "method": environ["REQUEST_METHOD"],
            "host": environ.get("HTTP_HOST", ""),
            "target": environ["RAW_URI"],
            "headers": headers,
            "size": len(body),
        }
        refused = unsigned(environ) or badly_signed(environ, headers, body) or self.failing(environ)
        if refused is None:
            self.held(environ)
            with self.behind_lock:
                self.body = body
                answer, status, told = run(self.behind, environ)
            refused = reshaped(environ, status, answer) if status.startswith("4") else None
        if refused is not None:
            status, kind, answer = refused
            told = [("content-type", kind)]
        if environ["REQUEST_METHOD"] != "HEAD":
            told = [(name, value) for name, value in told if name.lower() != "content-length"]
            told.append(("content-length", str(len(answer))))
        with self.lock:
            self.log.append({**entry, "status": int(status[:3])})
        start_response(status, told)
        return [answer]

    def failing(self, environ: Environ) -> tuple[str, str, bytes] | None:
        """503 for a request that asks for it, so many times for each name."""
        name, _, times = environ.get("HTTP_" + FAIL_HEADER.upper().replace("-", "_"), "").rpartition("/")
        if not name or not times.isdecimal():
            return None
        with self.lock:
            count = self.failures[name] = self.failures.get(name, 0) + 1
        if count > int(times):
            return None
        return refusal(environ, "ServiceUnavailable", "Please try again.", "503 Service Unavailable")

    def hold(self, name: str) -> Hold:
        """The hold of that name, whoever asks first."""
        with self.lock:
            return self.holds.setdefault(name, Hold())

    def held(self, environ: Environ) -> None:
        """Waits if the request asks for it."""
        if name := environ.get("HTTP_" + HOLD_HEADER.upper().replace("-", "_")):
            hold = self.hold(name)
            hold.arrived.set()
            hold.released.wait(HOLD_SECONDS)

    def control(self, path: str, start_response: StartResponse) -> Iterable[bytes]:
        """`/requests`: the log. `/held/NAME`: answers once that request is here. `/release/NAME`: lets it go on."""
        what, _, name = path.strip("/").partition("/")
        told: object = None
        if what == "held":
            told = self.hold(name).arrived.wait(HOLD_SECONDS)
        elif what == "release":
            self.hold(name).released.set()
        else:
            with self.lock:
                told = list(self.log)
        answer = json.dumps(told).encode()
        start_response("200 OK", [("content-type", "application/json"), ("content-length", str(len(answer)))])
        return [answer]


def read_exactly(environ: Environ) -> bytes:
    """The body by its content-length."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body: bytes = environ["wsgi.input"].read(length)
    return body


def run(application: Callable[[Environ, StartResponse], Iterable[bytes]], environ: Environ) -> tuple[bytes, str, list[tuple[str, str]]]:
    """Runs a WSGI application to its end: (body, status, headers)."""
    told: list[Any] = ["500 Internal Server Error", []]

    def start_response(status: str, headers: list[tuple[str, str]], _error: object = None) -> None:
        told[:] = [status, headers]

    try:
        parts = application(environ, start_response)
        body = b"".join(parts)
        if hasattr(parts, "close"):
            parts.close()
    except Exception:
        # What moto cannot do, e.g. check a presigned URL, it raises; the log should still tell what arrived.
        traceback.print_exc()
        return b"the emulator failed", "500 Internal Server Error", [("content-type", "text/plain")]
    return body, told[0], told[1]


def verify_the_body_as_sent(front: Front) -> None:
    """moto computes signatures over the form or query that it has parsed, where it finds no body: no GET with a query is right then."""
    from moto.iam.access_control import IAMRequestBase

    make = IAMRequestBase._create_aws_request

    def make_of_body(request: Any) -> Any:
        data, request._data, request._body = request._data, {}, front.body
        try:
            return make(request)
        finally:
            request._data = data

    IAMRequestBase._create_aws_request = make_of_body  # type: ignore[assignment, method-assign]


def main(certificate: str, key: str) -> None:
    """Serves until stdin ends."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class Handler(MotoRequestHandler):
        """Keeps the headers as they came: WSGI folds repeated ones and loses their case."""

        def make_environ(self) -> Environ:
            environ: Environ = super().make_environ()
            environ["emulator.headers"] = list(self.headers.items())
            return environ

        def log(self, *_: object) -> None:
            """The demo's own table says what happened."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    front = Front(DomainDispatcherApplication(create_backend_app))
    verify_the_body_as_sent(front)
    server = make_server("127.0.0.1", 0, front, threaded=True, request_handler=Handler)
    # The handshake belongs to the connection's thread: a client that is slow with it must not stop the others.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.ssl_context = context
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"listening {server.port}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
