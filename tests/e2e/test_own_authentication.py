"""Clients that authenticate themselves, through a sigward without any credentials: what they send arrives as they sent it."""

import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import boto3  # type: ignore[import-untyped]
import pytest
import trustme
from botocore.config import Config
from selenium.webdriver.common.by import By

from sigward.demo.child import clean_environment
from sigward.demo.gateway import Gateway
from tests.e2e.pages import BROWSER, Browser
from tests.needs import needs

REGION = "us-east-1"
TOKEN = "bedrock-api-key-of-this-test"
JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtZSJ9.c2ln"
BEDROCK, SEARCH = f"bedrock-runtime.{REGION}.amazonaws.com", f"search-logs.{REGION}.es.amazonaws.com"
API, URL = f"abc123.execute-api.{REGION}.amazonaws.com", f"abc123.lambda-url.{REGION}.on.aws"
GRAPHQL, BUCKET = f"abc123.appsync-api.{REGION}.amazonaws.com", f"uploads.s3.{REGION}.amazonaws.com"
SAID = {"output": {"message": {"role": "assistant", "content": [{"text": "hello"}]}}, "stopReason": "end_turn"}
CONVERSE = json.dumps({**SAID, "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}, "metrics": {"latencyMs": 1}})


@dataclass(frozen=True)
class Arrived:
    """One request."""

    method: str
    host: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Recorder:
    """Stands in for AWS: answers everything, with what Bedrock would say. Used with `with`."""

    directory: Path
    region: str = REGION
    arrived: list[Arrived] = field(default_factory=list)

    def __post_init__(self) -> None:
        authority = trustme.CA()
        self.ca_file = self.directory / "recorder.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        wild = [host.partition(".")[2] for host in (BEDROCK, SEARCH, API, URL, GRAPHQL, BUCKET)]
        authority.issue_cert(*(f"*.{parent}" for parent in wild)).configure_cert(context)
        arrived = self.arrived

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                arrived.append(Arrived(self.command, headers["host"], self.path, headers, body))
                told = CONVERSE.encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port: int = self.server.server_address[1]

    def credentials(self) -> dict[str, str]:
        """None."""
        return {}

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def take(self) -> list[Arrived]:
        """What has arrived since the last time."""
        taken = self.arrived[:]
        self.arrived.clear()
        return taken


@pytest.fixture(scope="module", params=["mitmproxy", "native"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Recorder]]:
    """sigward without credentials, before a server that records."""
    with Recorder(tmp_path_factory.mktemp("recorder")) as recorder:
        hosts = [{"host": "*.on.aws"}]
        with Gateway(recorder, {"AWS_EC2_METADATA_DISABLED": "true"}, front=request.param, route=hosts, reverse=False) as gateway:
            yield gateway, recorder


def only(recorder: Recorder) -> Arrived:
    (arrived,) = recorder.take()
    assert "x-amz-date" not in arrived.headers
    assert "x-amz-security-token" not in arrived.headers
    return arrived


def test_bedrock_s_api_key(served: tuple[Gateway, Recorder], monkeypatch: pytest.MonkeyPatch) -> None:
    """`AWS_BEARER_TOKEN_BEDROCK`, read by boto3 and by the AWS CLI."""
    gateway, recorder = served
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", TOKEN)
    proxy = f"http://{gateway.addresses['forward']}"
    config = Config(proxies={"https": proxy}, retries={"total_max_attempts": 1})
    client: Any = boto3.client("bedrock-runtime", region_name=REGION, config=config, verify=str(gateway.ca_file))
    said = client.converse(modelId="us.amazon.nova-micro-v1:0", messages=[{"role": "user", "content": [{"text": "hi"}]}])
    assert said["output"]["message"]["content"] == [{"text": "hello"}]
    arrived = only(recorder)
    assert (arrived.host, arrived.headers["authorization"]) == (BEDROCK, f"Bearer {TOKEN}")
    assert arrived.path == "/model/us.amazon.nova-micro-v1%3A0/converse"
    if gateway.settings["front"] == "mitmproxy":
        return  # One start of the AWS CLI is enough: what arrives is compared front by front in tests/conformance.
    environment = clean_environment() | {"AWS_BEARER_TOKEN_BEDROCK": TOKEN, "HTTPS_PROXY": proxy, "AWS_CA_BUNDLE": str(gateway.ca_file)}
    command = [sys.executable, "-m", "awscli", "--region", REGION, "bedrock-runtime", "converse", "--model-id", "m"]
    messages = ["--messages", '[{"role": "user", "content": [{"text": "hi"}]}]']
    done = subprocess.run([*command, *messages], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
    assert only(recorder).headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("host", "path", "arguments", "header", "value"),
    [
        (SEARCH, "/_search", ["--user", "reader:a password"], "authorization", "Basic cmVhZGVyOmEgcGFzc3dvcmQ="),
        (API, "/prod/items?a=1", ["--oauth2-bearer", JWT], "authorization", f"Bearer {JWT}"),
        (API, "/prod/items", ["--header", "Authorization: allow"], "authorization", "allow"),
        (URL, "/", ["--header", f"Authorization: Bearer {JWT}", "--data", "{}"], "authorization", f"Bearer {JWT}"),
        (GRAPHQL, "/graphql", ["--header", "x-api-key: da2-abc", "--data", "{}"], "x-api-key", "da2-abc"),
        (GRAPHQL, "/graphql", ["--header", f"Authorization: {JWT}", "--data", "{}"], "authorization", JWT),
    ],
)
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_curl(served: tuple[Gateway, Recorder], scheme: str, host: str, path: str, arguments: list[str], header: str, value: str) -> None:
    """An `http://` URL goes out over TLS, as what is signed does."""
    gateway, recorder = served
    asked = ["--proxy", f"http://{gateway.addresses['forward']}", "--cacert", str(gateway.ca_file), *arguments, f"{scheme}://{host}{path}"]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["curl", "-sS", "--fail-with-body", *asked], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr + done.stdout
    arrived = only(recorder)
    assert (arrived.host, arrived.path, arrived.headers[header]) == (host, path, value)
    assert header == "authorization" or "authorization" not in arrived.headers


@needs(*BROWSER)
def test_a_browser_s_upload(served: tuple[Gateway, Recorder], tmp_path: Path) -> None:
    """A page with a form that boto3 presigned, and Chromium that sends it."""
    gateway, recorder = served
    keys = {"aws_access_key_id": "AKIDOFPAGE", "aws_secret_access_key": "secret-of-the-page"}
    post = boto3.client("s3", region_name=REGION, **keys).generate_presigned_post("uploads", "a key/${filename}")
    inputs = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in post["fields"].items())
    form = f'<form action="https://{BUCKET}/" method="post" enctype="multipart/form-data">{inputs}<input type="file" name="file"></form>'
    page, file = tmp_path / "page.html", tmp_path / "photo.txt"
    page.write_text(form)
    file.write_text("taken today")
    more = (f"--proxy-server=http://{gateway.addresses['forward']}", "--ignore-certificate-errors", "--disable-background-networking")
    with Browser(page.as_uri(), arguments=more) as browser:
        browser.driver.find_element(By.NAME, "file").send_keys(str(file))
        browser.driver.execute_script("document.forms[0].submit()")  # type: ignore[no-untyped-call]
        browser.wait_for_text("hello")
    arrived = [one for one in recorder.take() if one.host == BUCKET and one.method == "POST"]
    assert len(arrived) == 1
    assert "authorization" not in arrived[0].headers
    assert arrived[0].path == "/"
    for value in (*post["fields"].values(), "taken today", 'filename="photo.txt"'):
        assert value.encode() in arrived[0].body
