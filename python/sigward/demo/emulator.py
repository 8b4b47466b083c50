"""An AWS that runs here: moto's server behind real TLS, with IAM checks on.

It answers for the names of AWS's endpoints with a certificate for them, recomputes each signature with botocore's code, and
refuses what is wrong or missing. (Query calls must be POSTs: of a GET with its parameters in the query, moto takes them for the body
as well, and refuses also what botocore has signed.) A request whose `x-demo-fail` header says "2" gets 503 twice before it is served.
"""

import contextlib
import json
import os
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

REGION = "us-east-1"
HOSTS = ("*.us-east-1.amazonaws.com", "*.s3.us-east-1.amazonaws.com", "*.amazonaws.com", "*.s3.amazonaws.com")
SETUP_ACTIONS = 3
"""Create the user, its key and its policy: moto checks signatures from then on."""

POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}

UNSIGNED = (
    b"<ErrorResponse><Error><Type>Sender</Type><Code>MissingAuthenticationToken</Code>"
    b"<Message>Request is missing Authentication Token</Message></Error></ErrorResponse>"
)


@dataclass(frozen=True)
class Seen:
    """One request as it arrived. `scope`: "us-east-1/s3" of its signature, None: it was not signed. `status`: the answer."""

    method: str
    host: str
    path: str
    scope: str | None
    status: int
    access_key_id: str | None


class Emulator:
    """Use it with `with`. `ca_file`: what its clients must trust; `access_key_id`, `secret_access_key`: a key it knows."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca_file = directory / "emulator-ca.pem"
        self.access_key_id = ""
        self.secret_access_key = ""
        self.port = 0
        self.seen: list[Seen] = []
        self._failures: Counter[str] = Counter()

    def __enter__(self) -> "Emulator":
        self._server = self._make_server()
        self.port = self._server.port
        self._thread = threading.Thread(target=self._server.serve_forever, name="emulator", daemon=True)
        self._thread.start()
        self._create_user()
        self.seen.clear()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _make_server(self) -> Any:
        # moto reads it when it is imported.
        os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = str(SETUP_ACTIONS)
        import logging

        import trustme
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*HOSTS).configure_cert(context)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)

        class Handler(MotoRequestHandler):  # type: ignore[misc]
            """Keeps connections alive, as AWS does."""

            protocol_version = "HTTP/1.1"

        dispatcher = DomainDispatcherApplication(create_backend_app)
        return make_server("127.0.0.1", 0, self._watched(dispatcher), threaded=True, request_handler=Handler, ssl_context=context)

    def _watched(self, application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        def watch(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            authorization = environ.get("HTTP_AUTHORIZATION", "")
            scope = authorization.partition("Credential=")[2].partition(",")[0].split("/")
            signed = len(scope) == 5

            def started(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
                self.seen.append(
                    Seen(
                        environ["REQUEST_METHOD"],
                        environ.get("HTTP_HOST", ""),
                        environ.get("RAW_URI", environ.get("PATH_INFO", "")),
                        f"{scope[2]}/{scope[3]}" if signed else None,
                        int(status.split()[0]),
                        scope[0] if signed else None,
                    )
                )
                return start_response(status, headers, *more)

            if self._must_fail(environ):
                body = b"<Response><Errors><Error><Code>Unavailable</Code><Message>on purpose</Message></Error></Errors></Response>"
                started("503 Service Unavailable", [("content-type", "text/xml"), ("content-length", str(len(body)))])
                return [body]
            if not signed and "X-Amz-Signature=" not in environ.get("QUERY_STRING", ""):
                # moto fails on requests without a signature; AWS refuses them so.
                started("403 Forbidden", [("content-type", "text/xml"), ("content-length", str(len(UNSIGNED)))])
                return [UNSIGNED]
            return application(environ, started)

        return watch

    def _must_fail(self, environ: dict[str, Any]) -> bool:
        times, key = environ.get("HTTP_X_DEMO_FAIL"), environ.get("HTTP_X_DEMO_ID", "")
        if times is None or self._failures[key] >= int(times):
            return False
        self._failures[key] += 1
        return True

    def _create_user(self) -> None:
        with self.detour() as port:
            iam = self.client("iam", port, aws_access_key_id="setup", aws_secret_access_key="setup")  # noqa: S106
            iam.create_user(UserName="sigward")
            key = iam.create_access_key(UserName="sigward")["AccessKey"]
            iam.put_user_policy(UserName="sigward", PolicyName="all", PolicyDocument=json.dumps(POLICY))
        self.access_key_id, self.secret_access_key = key["AccessKeyId"], key["SecretAccessKey"]

    def client(self, service: str, detour_port: int, **more: Any) -> Any:
        """A boto3 client that reaches the emulator under AWS's own names."""
        import boto3
        from botocore.config import Config

        config = Config(proxies={"https": f"http://127.0.0.1:{detour_port}"}, retries={"total_max_attempts": 1}).merge(
            more.pop("config", Config())
        )
        return boto3.session.Session().client(service, region_name=REGION, verify=str(self.ca_file), config=config, **more)

    @contextlib.contextmanager
    def detour(self) -> Iterator[int]:
        """A CONNECT proxy that leads every name to the emulator: how clients reach it without sigward. Yields its port."""
        import socket
        import socketserver

        target = self.port

        class Connect(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                with socket.create_connection(("127.0.0.1", target)) as upstream:
                    back = threading.Thread(target=copy, args=(upstream, self.connection), daemon=True)
                    back.start()
                    copy(self.connection, upstream)
                    back.join()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        with Server(("127.0.0.1", 0), Connect) as server:
            threading.Thread(target=server.serve_forever, name="detour", daemon=True).start()
            try:
                yield server.server_address[1]
            finally:
                server.shutdown()


def copy(source: Any, target: Any) -> None:
    """Bytes from one socket to another until either ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(1)
