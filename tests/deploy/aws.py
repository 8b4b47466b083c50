"""Where a pod's keys come from at AWS: STS for IRSA, the agent of EKS Pod Identity, and EC2's metadata service, each a small real server.

STS and the agent give out keys of a role that the emulator knows, and verifies.
"""

import json
import re
import socket
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import boto3
import trustme
from botocore.config import Config

from sigward.demo.child import cleaned
from sigward.demo.emulator import POLICY, REGION, Emulator
from tests.support import SECRETS

STS = f"sts.{REGION}.amazonaws.com"
AGENT = "169.254.170.23"
IMDS = "169.254.169.254"
ROLE = "arn:aws:iam::123456789012:role/app"
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}


def role_keys(emulator: Emulator) -> dict[str, str]:
    """`AccessKeyId`, `SecretAccessKey`, `SessionToken` and `Expiration` of a session of `ROLE`, as STS gives them out."""
    with cleaned():
        keys = {name.lower(): value for name, value in emulator.credentials().items()}
        session = boto3.Session(region_name=REGION, **{name: keys[name] for name in ("aws_access_key_id", "aws_secret_access_key")})
        at: dict[str, Any] = {
            "endpoint_url": f"https://localhost:{emulator.port}",
            "verify": str(emulator.ca_file),
            "config": Config(retries={"max_attempts": 0}),
        }
        iam, sts = session.client("iam", **at), session.client("sts", **at)
        if "app" not in {role["RoleName"] for role in iam.list_roles()["Roles"]}:
            iam.create_role(RoleName="app", AssumeRolePolicyDocument=json.dumps(TRUST))
            iam.put_role_policy(RoleName="app", PolicyName="everything", PolicyDocument=json.dumps(POLICY))
        given = sts.assume_role(RoleArn=ROLE, RoleSessionName="pod")["Credentials"]
    SECRETS.extend(re.compile(re.escape(given[name])) for name in ("SecretAccessKey", "SessionToken"))
    return {**given, "Expiration": given["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ")}


class Told(ThreadingHTTPServer):
    """A server that notes each request as "METHOD target"."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler, bind_and_activate=False)
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    """What the three have in common."""

    server: Told

    def answer(self, status: int, body: str, kind: str = "application/json") -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


class PodIdentityAgent(Told):
    """The node's agent: keys for whoever shows the token. See "EKS Pod Identity Agent" in the Amazon EKS User Guide."""

    def __init__(self, keys: dict[str, str], token: str) -> None:
        super().__init__(PodIdentityHandler)
        self.token = token
        self.keys = {name: keys[name] for name in ("AccessKeyId", "SecretAccessKey", "Expiration")} | {"Token": keys["SessionToken"]}


class PodIdentityHandler(Handler):
    server: PodIdentityAgent

    def do_GET(self) -> None:
        known = self.path == "/v1/credentials" and self.headers["authorization"] == self.server.token
        self.answer(200 if known else 403, json.dumps(self.server.keys if known else {"message": "Access Denied"}))


class SecurityTokenService(Told):
    """AssumeRoleWithWebIdentity, over TLS."""

    def __init__(self, ca: trustme.CA, keys: dict[str, str], token: str) -> None:
        super().__init__(SecurityTokenHandler)
        self.keys, self.token = keys, token
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(STS).configure_cert(self.context)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, peer = super().get_request()
        return self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), peer


class SecurityTokenHandler(Handler):
    server: SecurityTokenService

    def do_POST(self) -> None:
        asked = {name: values[0] for name, values in parse_qs(self.rfile.read(int(self.headers["content-length"])).decode()).items()}
        known = (asked["Action"], asked["RoleArn"], asked["WebIdentityToken"]) == ("AssumeRoleWithWebIdentity", ROLE, self.server.token)
        if not known or "authorization" in self.headers:
            self.answer(403, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>", "text/xml")
            return
        keys = "".join(f"<{name}>{value}</{name}>" for name, value in self.server.keys.items())
        result = f"<AssumeRoleWithWebIdentityResult><Credentials>{keys}</Credentials></AssumeRoleWithWebIdentityResult>"
        space = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
        self.answer(200, f"<AssumeRoleWithWebIdentityResponse {space}>{result}</AssumeRoleWithWebIdentityResponse>", "text/xml")


class Metadata(Told):
    """EC2's metadata service: the node's role, for whoever reaches it."""

    def __init__(self) -> None:
        super().__init__(MetadataHandler)


class MetadataHandler(Handler):
    def do_GET(self) -> None:
        self.answer(200, "the-nodes-role")
