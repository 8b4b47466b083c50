"""Git over HTTPS to CodeCommit, as its host rule has it: what the server asks for reaches Git, and what Git answers reaches the server."""

import base64
import gzip
import http.server
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sigward.demo.child import clean_environment
from sigward.demo.gateway import Gateway
from tests.needs import need

REGION = "us-east-1"
HOST = f"git-codecommit.{REGION}.amazonaws.com"
KEY, SECRET = "AKIAGITSOWN", "gits/own+secret"
USER, PASSWORD = "demo-at-123456789012", "a password+of/IAM's="
LARGE = 3 << 20
"""Beyond Git's `http.postBuffer` and `body.hold`: it is pushed as a stream of unknown length, larger than a stream's first window."""


def signature(path: str, password: str) -> str:
    """What `aws codecommit credential-helper` gives for a path, at the time that a password begins with."""
    signer = SigV4Auth(Credentials(KEY, SECRET), "codecommit", REGION)
    request = AWSRequest("GIT", f"https://{HOST}{path}")
    request.context["timestamp"] = password[:15]
    to_sign = signer.string_to_sign(request, f"GIT\n{path}\n\nhost:{HOST}\n\nhost\n")
    return f"{password[:15]}Z{signer.signature(to_sign, request)}"


class Handler(http.server.BaseHTTPRequestHandler):
    """`git http-backend` behind HTTP Basic, as CodeCommit has it."""

    protocol_version = "HTTP/1.1"
    server: "GitServer"

    def allowed(self) -> bool:
        scheme, _, given = self.headers.get("authorization", "").partition(" ")
        if scheme != "Basic":
            return False
        user, _, password = base64.b64decode(given).decode().partition(":")
        repository = "/".join(self.path.split("?")[0].split("/")[:4])
        return (user, password) == (USER, PASSWORD) or (user == KEY and password == signature(repository, password))

    def content(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self) -> None:
        body = self.content()
        self.server.asked.append((self.path, self.headers.get("authorization"), len(body)))
        if not self.allowed():
            self.reply(401, [("WWW-Authenticate", 'Basic realm="git-codecommit"')], b"")
            return
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.server.root), "GIT_HTTP_EXPORT_ALL": "1", "REMOTE_USER": "git",
            "REQUEST_METHOD": self.command, "PATH_INFO": path, "QUERY_STRING": query, "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("content-type", ""), "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
        }  # fmt: skip
        done = subprocess.run([need("git"), "http-backend"], input=body, env=environment, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")]
        status = next((int(value.split()[0]) for name, value in fields if name == "Status"), 200)
        self.reply(status, [(name, value) for name, value in fields if name != "Status"], content)

    def reply(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(content)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class GitServer(http.server.ThreadingHTTPServer):
    """Stands where CodeCommit does. `asked`: target, Authorization and length of each request."""

    daemon_threads = True
    region = REGION

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.ca_file = directory / "root", directory / "ca.pem"
        self.asked: list[tuple[str, str | None, int]] = []
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.port = self.server_address[1]

    def credentials(self) -> dict[str, str]:
        """sigward's own: nothing of this may be signed with them."""
        return {"AWS_ACCESS_KEY_ID": "AKIASIGWARDS", "AWS_SECRET_ACCESS_KEY": "sigwards/own+secret"}

    def add(self, name: str) -> str:
        """A bare repository. Its URL."""
        path = f"/v1/repos/{name}"
        subprocess.run([need("git"), "init", "--quiet", "--bare", "-b", "main", f"{self.root}{path}"], check=True)
        return f"https://{HOST}{path}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    running = GitServer(tmp_path_factory.mktemp("git"))
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(scope="module", params=["mitmproxy", "native"])
def front(request: pytest.FixtureRequest, server: GitServer) -> Iterator[Gateway]:
    with Gateway(server, front=request.param, reverse=False) as gateway:
        yield gateway


AWS = Path(sys.executable).parent / "aws"
HELPERS = {
    "user and password": f'!f() {{ test "$1" = get && printf "username={USER}\\npassword={PASSWORD}\\n"; }}; f',
    # What it says holds for a quarter of an hour, so the CLI is started once.
    "the AWS CLI's": f'!f() {{ test "$1" = get || exit 0; test -s ~/a || {AWS} codecommit credential-helper get >~/a; cat ~/a; }}; f',
}


@pytest.mark.parametrize("helper", HELPERS)
def test_git_reads_and_writes(helper: str, front: Gateway, server: GitServer, tmp_path: Path) -> None:
    url = server.add(f"{front.settings['front']}-{helper.split()[0]}")
    variables = clean_environment() | {
        "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "HTTPS_PROXY": front.url("forward"),
        "GIT_SSL_CAINFO": str(front.ca_file), "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": REGION,
        **{f"GIT_{who}_{what}": "demo@example.test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }  # fmt: skip
    (tmp_path / ".gitconfig").write_text(
        f"[credential]\n\thelper = {quoted(HELPERS[helper])}\n\tUseHttpPath = true\n[init]\n\tdefaultBranch = main\n"
    )

    def git(*arguments: str, folder: str = ".") -> str:
        done = subprocess.run([need("git"), *arguments], cwd=tmp_path / folder, env=variables, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr + front.child.output()[-2000:]
        return done.stdout.strip()

    before = len(server.asked)
    git("init", "--quiet", "work")
    (tmp_path / "work" / "large").write_bytes(os.urandom(LARGE))
    git("add", "large", folder="work")
    git("commit", "--quiet", "-m", "one", folder="work")
    git("push", "--quiet", url, "main", folder="work")
    head = git("rev-parse", "HEAD", folder="work")
    assert git("ls-remote", url, "main") == f"{head}\trefs/heads/main"
    git("clone", "--quiet", url, "copy")
    assert (tmp_path / "copy" / "large").read_bytes() == (tmp_path / "work" / "large").read_bytes()

    asked = server.asked[before:]
    assert asked[0][:2] == (f"{url.removeprefix(f'https://{HOST}')}/info/refs?service=git-receive-pack", None), "bare, to be challenged"
    assert {(authorization or "bare").split()[0] for _, authorization, _ in asked} == {"bare", "Basic"}
    assert max(length for _, _, length in asked) > LARGE
    assert "the table of AWS's hosts" not in front.child.output()


def quoted(text: str) -> str:
    """A value of Git's settings."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
