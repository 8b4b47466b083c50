"""Client stacks: plain HTTP clients without a signature and SDKs with dummy keys, through both fronts, by HTTPS_PROXY and by endpoint URL.

What they run with is what `sigward env` prints, and nothing by hand. The programs lie in `stacks/`; `make stacks` builds them.
"""

import http.server
import re
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sigward.ca import CertificateAuthority
from sigward.demo.calls import Ways
from sigward.demo.child import clean_environment
from sigward.demo.clients import AwsCli
from sigward.demo.emulator import Emulator
from sigward.demo.gateway import Gateway
from sigward.demo.tunnel import Tunnel
from sigward.environ import DUMMY_KEY
from sigward.trust import Trust
from tests.conftest import ROOT
from tests.needs import lack

STACKS = Path(__file__).parent / "stacks"
BUILT = ROOT / "build" / "stacks"
BUCKET = "stacks"
S3 = f"https://s3.{Emulator.region}.amazonaws.com"
TEXT = "from a stack"

Program = tuple[str, ...]


@dataclass(frozen=True)
class Stack:
    """`program`: what is run, before the arguments of every stack's program. `needs`: see `tests.needs`. `target`: of make."""

    name: str
    program: Program
    needs: tuple[str, ...] = ()
    target: str | None = None

    def arguments(self, base: str, key: str) -> list[str]:
        """The command line that puts an object and prints it."""
        return [*self.program, base, BUCKET, key, TEXT]


PYTHON: Program = (sys.executable, "-W", "ignore", str(STACKS / "python" / "client.py"))
GO: Program = (str(BUILT / "go" / "client"),)
NODE: Program = ("node", str(BUILT / "node" / "client.mjs"))
# Fewer threads, and no time for what pays only in programs that run for long.
JAVA: Program = ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{BUILT / 'java'}:{BUILT / 'java' / 'lib'}/*", "Client")

GO_NEEDS = (("go",), "build/stacks/go/client")
PERL: Program = ("perl", str(STACKS / "perl" / "client.pl"))
PHP: Program = ("php", str(STACKS / "php" / "client.php"))

NODE_NEEDS = (("node", "npm"), "build/stacks/node/client.mjs")
JAVA_NEEDS = (("java", "javac", "mvn"), "build/stacks/java/Client.class")

ALL = (
    Stack("curl", ("sh", str(STACKS / "curl.sh")), ("curl",)),
    Stack("requests", (*PYTHON, "requests")),
    Stack("httpx", (*PYTHON, "httpx")),
    Stack("aiohttp", (*PYTHON, "aiohttp")),
    Stack("urllib3", (*PYTHON, "urllib3")),
    Stack("opensearch-py", (*PYTHON, "opensearch")),
    Stack("boto3", (*PYTHON, "boto3")),
    Stack("AWS CLI", ("sh", str(STACKS / "aws.sh"), sys.executable)),
    Stack("wget", ("sh", str(STACKS / "wget.sh")), ("wget",)),
    Stack("Perl LWP", (*PERL, "lwp"), ("perl", "LWP::Protocol::https")),
    Stack("Perl Tiny", (*PERL, "tiny"), ("perl", "LWP::Protocol::https")),
    Stack("PHP curl", (*PHP, "curl"), ("php", "php-curl")),
    Stack("PHP streams", (*PHP, "streams"), ("php",)),
    Stack("pycurl", ("/usr/bin/python3", str(STACKS / "python" / "client.py"), "pycurl"), ("pycurl",)),
    Stack("Ruby", ("ruby", str(STACKS / "ruby" / "client.rb")), ("ruby",)),
    Stack("Node fetch", (*NODE, "fetch"), *NODE_NEEDS),
    Stack("Node SDK", (*NODE, "sdk"), *NODE_NEEDS),
    Stack("Go net/http", (*GO, "http"), *GO_NEEDS),
    Stack("Go SDK", (*GO, "sdk"), *GO_NEEDS),
    Stack("Java HttpClient", (*JAVA, "http"), *JAVA_NEEDS),
    Stack("Java SDK", (*JAVA, "sdk"), *JAVA_NEEDS),
    Stack("Java SDK, async", (*JAVA, "async"), *JAVA_NEEDS),
)


HTTP = ("curl", "requests", "boto3", "wget", "Perl LWP", "PHP curl", "PHP streams", "Ruby", "Go net/http", "Java HttpClient")
"""Each kind of HTTP client once: where `http://` is to work."""

OLDEST = {"go": ("version", (1, 24)), "node": ("--version", (20, 0)), "javac": ("-version", (17, 0))}
"""What the SDKs' versions in the lock files, and the programs, ask for."""


def lacks(tool: str) -> str | None:
    """Why a tool will not do; None: it will."""
    if why := lack(tool):
        return why
    if tool in OLDEST:
        flag, oldest = OLDEST[tool]
        told = subprocess.run([tool, flag], capture_output=True, text=True, check=True).stdout
        found = re.search(r"(\d+)\.(\d+)", told)
        if found is None or (int(found[1]), int(found[2])) < oldest:
            return f"{tool} >= {'.'.join(map(str, oldest))} is missing: {told.strip()} is here"
    return None


@pytest.fixture(scope="session")
def built() -> Callable[[Stack], Stack]:
    """Makes a stack's program, once; skips the test where its tools are missing."""
    made: set[str] = set()

    def build(stack: Stack) -> Stack:
        if missing := [why for tool in stack.needs if (why := lacks(tool))]:
            pytest.skip(missing[0])
        if stack.target and stack.target not in made:
            done = subprocess.run(["make", "-s", "-C", str(ROOT), stack.target], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            made.add(stack.target)
        return stack

    return build


@pytest.fixture(params=ALL, ids=lambda stack: stack.name)
def stack(request: pytest.FixtureRequest, built: Callable[[Stack], Stack]) -> Stack:
    return built(request.param)


@pytest.fixture(scope="session", params=["mitmproxy", "native"])
def front(request: pytest.FixtureRequest, emulator: Emulator) -> Iterator[Gateway]:
    with Gateway(emulator, front=request.param) as gateway:
        gateway.wait_ready()
        made = AwsCli(["s3api", "create-bucket", "--bucket", BUCKET], Emulator.region)(
            Ways(emulator, gateway, "").through("HTTPS_PROXY"),
        )
        assert made.ok, made.detail
        yield gateway


def told_by_env(*flags: str) -> dict[str, str]:
    """The variables that `sigward env` prints."""
    command = [sys.executable, "-m", "sigward", "env", "--shell", "docker", "--region", Emulator.region, *flags]
    told = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return dict(line.split("=", 1) for line in told.stdout.splitlines())  # type: ignore[misc]


@pytest.fixture(scope="session")
def variables(front: Gateway) -> dict[str, str]:
    """Of the running gateway: its file says port 0, so where it listens is told."""
    return told_by_env("--config", str(front.config_file), "--listen", front.addresses["forward"])


def run(command: list[str], variables: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    """In the environment of whoever runs the tests, without their keys and proxies."""
    return subprocess.run(command, env=clean_environment() | variables | more, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("way", ["forward", "reverse"])
def test_every_stack(stack: Stack, way: str, front: Gateway, variables: dict[str, str], emulator: Emulator) -> None:
    before = len(emulator.requests())
    key = f"{stack.name}-{way}".replace(" ", "-").replace("/", "-").replace(",", "")
    base = S3 if way == "forward" else front.url("s3")
    more = {"AWS_ENDPOINT_URL_S3": base} if way == "reverse" else {}
    done = run(stack.arguments(base, key), variables, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == TEXT
    arrived = emulator.requests(before)
    assert [(request.method, request.status) for request in arrived] == [("PUT", 200), ("GET", 200)]
    for request in arrived:
        assert request.target.startswith(f"/{BUCKET}/{key}")
        assert request.scope == (emulator.access_key_id, emulator.region, "s3")
        assert not any(DUMMY_KEY in value for _, value in request.headers)


def without_trust(front: Gateway, variables: dict[str, str]) -> dict[str, str]:
    """The variables but those that name files with sigward's CA."""
    trust = str(front.directory / "ca" / "trust")
    told = {name: value for name, value in variables.items() if name == "JAVA_TOOL_OPTIONS" or trust not in value}
    told["JAVA_TOOL_OPTIONS"] = " ".join(option for option in told["JAVA_TOOL_OPTIONS"].split() if "trustStore" not in option)
    assert trust not in str(told)
    return told


@pytest.mark.parametrize("front", ["native"], indirect=True)
def test_no_stack_takes_a_ca_that_it_was_not_told_of(stack: Stack, front: Gateway, variables: dict[str, str], emulator: Emulator) -> None:
    """Else the tests above would show nothing of trust."""
    before = len(emulator.requests())
    done = run(stack.arguments(S3, "distrusted"), without_trust(front, variables))
    assert done.returncode != 0, done.stdout
    assert re.search("certif|CERTIFICATE_VERIFY_FAILED|SSL validation failed", done.stdout + done.stderr), done.stderr
    assert emulator.requests(before) == []


@pytest.mark.parametrize("name", HTTP)
def test_plain_http_needs_no_ca(
    name: str, built: Callable[[Stack], Stack], front: Gateway, variables: dict[str, str], emulator: Emulator
) -> None:
    """`http://` in place of `https://`: through the proxy, signed, and from there over TLS, which is all that the emulator speaks."""
    stack = built(next(stack for stack in ALL if stack.name == name))
    before = len(emulator.requests())
    base = S3.replace("https://", "http://")
    done = run(stack.arguments(base, f"http-{name}".replace(" ", "-")), without_trust(front, variables), AWS_ENDPOINT_URL_S3=base)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == TEXT
    arrived = emulator.requests(before)
    assert [(request.method, request.status) for request in arrived] == [("PUT", 200), ("GET", 200)]


@pytest.mark.parametrize("scheme", ["https", "http"])
@pytest.mark.parametrize("program", ["wget2", "aria2c"])
def test_what_only_downloads(program: str, scheme: str, front: Gateway, variables: dict[str, str], tmp_path: Path) -> None:
    """aria2 reads proxies from the environment, and no variable for what it trusts. wget2 before version 2 sends the proxy no CONNECT, but
    speaks TLS to it as if it were the server."""
    if program == "wget2" and scheme == "https" and front.settings["front"] == "native":
        pytest.skip("only mitmproxy takes a server's TLS on a proxy's port")
    if missing := lacks(program):
        pytest.skip(missing)
    url = f"{S3}/{BUCKET}/{program}-{scheme}"
    put = ["curl", "-sS", "--fail", "-X", "PUT", "-H", "content-type: text/plain", "-d", TEXT, url]
    assert run(put, variables).returncode == 0
    url = url.replace("https:", f"{scheme}:")
    if program == "wget2":
        command = ["wget2", "-q", "-O", str(tmp_path / "got"), url]
        told = variables if scheme == "https" else without_trust(front, variables)
    else:
        trust = [f"--ca-certificate={variables['SSL_CERT_FILE']}"] if scheme == "https" else []
        command, told = ["aria2c", "--quiet", "--no-conf", f"--dir={tmp_path}", "--out=got", *trust, url], without_trust(front, variables)
    done = run(command, told, HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "got").read_text() == TEXT


@pytest.mark.parametrize("name", ["curl", "boto3", "wget", "Node fetch", "Java HttpClient"])
def test_sigward_run(name: str, built: Callable[[Stack], Stack], front: Gateway, emulator: Emulator) -> None:
    """The variables of `sigward run`, which are the same, with a sigward of its own."""
    stack = built(next(stack for stack in ALL if stack.name == name))
    command = [sys.executable, "-m", "sigward", "run", "--config", str(front.config_file), "--", *stack.arguments(S3, "by-run")]
    done = run(command, emulator.credentials(), AWS_REGION=emulator.region)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == TEXT


# ---------------------------------------------------------------- name constraints


OUTSIDE = "outside.example.org"


class Impostor:
    """A TLS server with a leaf that whoever has the issuing key can make. It answers every request with `TEXT`."""

    def __init__(self, authority: CertificateAuthority, directory: Path, host: str) -> None:
        pem = authority.key_file.read_bytes()
        issuer, root = x509.load_pem_x509_certificates(pem)
        issuing_key = serialization.load_pem_private_key(pem, None)
        assert isinstance(issuing_key, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(issuer.not_valid_before_utc)
            .not_valid_after(issuer.not_valid_after_utc)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing_key.public_key()), critical=False)
            .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(issuing_key, hashes.SHA256())
        )
        file = directory / f"{host}.pem"
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        file.write_bytes(secret + b"".join(one.public_bytes(serialization.Encoding.PEM) for one in (leaf, issuer, root)))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(file)
        self.region, self.ca_file = Emulator.region, authority.certificate_file
        self.requests = 0

    def __enter__(self) -> "Impostor":
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                outer.requests += 1
                self.rfile.read(int(self.headers.get("content-length", "0")))
                self.send_response(200)
                self.send_header("content-length", str(len(TEXT)))
                self.end_headers()
                self.wfile.write(TEXT.encode())

            do_GET = do_PUT = answer  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            def finish_request(self, request: object, address: object) -> None:
                # In the connection's own thread: a client that breaks the handshake off holds nobody up.
                try:
                    secure = outer.context.wrap_socket(request, server_side=True)  # type: ignore[arg-type]
                except OSError:
                    return
                super().finish_request(secure, address)  # type: ignore[arg-type]

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def credentials(self) -> dict[str, str]:
        """For a sigward before it."""
        return {"AWS_ACCESS_KEY_ID": "AKIDTESTS", "AWS_SECRET_ACCESS_KEY": "a-secret-that-must-not-leak"}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    made = CertificateAuthority(tmp_path_factory.mktemp("authority") / "ca")
    Trust(made.directory / "trust").write(made)
    return made


@pytest.fixture(scope="session")
def impostors(authority: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Impostor]]:
    """One for an AWS host, so that a refusal is for the name alone, and one for a host that the CA does not vouch for."""
    directory = tmp_path_factory.mktemp("impostors")
    host = S3.removeprefix("https://")
    with Impostor(authority, directory, host) as within, Impostor(authority, directory, OUTSIDE) as outside:
        yield {host: within, OUTSIDE: outside}


PLAIN = ("curl", "requests", "httpx", "wget", "Node fetch", "Go net/http", "Java HttpClient")


@pytest.mark.parametrize("name", PLAIN)
def test_no_stack_takes_a_certificate_outside_of_the_constraints(
    name: str, built: Callable[[Stack], Stack], impostors: dict[str, Impostor], authority: CertificateAuthority
) -> None:
    """Whoever steals the CA's key can stand in for AWS's hosts, and for no others."""
    stack = built(next(stack for stack in ALL if stack.name == name))
    for host, impostor in impostors.items():
        before = impostor.requests
        # Every name leads to the impostor.
        with Tunnel(impostor.port) as tunnel:
            variables = told_by_env("--proxy", tunnel.url, "--trust-dir", str(authority.directory / "trust"))
            done = run(stack.arguments(f"https://{host}", "any"), variables)
        if host == OUTSIDE:
            assert done.returncode != 0, done.stdout
            assert "certif" in (done.stdout + done.stderr).lower() or "subtree" in done.stderr, done.stderr
            assert impostor.requests == before
        else:
            assert done.returncode == 0, done.stdout + done.stderr
            assert impostor.requests == before + 2


def test_openssl_and_rustls_refuse_it_too(impostors: dict[str, Impostor]) -> None:
    """sigward's own way upstream is rustls."""
    for host, impostor in impostors.items():
        with Gateway(impostor, front="native", route=[{"host": host, "service": "s3", "region": Emulator.region}]) as gateway:
            gateway.wait_ready()
            proxy = gateway.url("forward")
            command = ["curl", "-sS", "-w", "%{http_code}", "--proxy", proxy, f"http://{host}/any"]
            done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("502") if host == OUTSIDE else done.stdout == f"{TEXT}200", done.stdout
    assert impostors[OUTSIDE].requests == 0


def test_what_an_application_mounts_holds_no_key(front: Gateway) -> None:
    """The directory that a running sigward has written."""
    trust = front.directory / "ca" / "trust"
    names = ["bundle.pem", "ca.pem", "sigward.ini", "truststore.p12", "wget2rc", "wgetrc"]
    assert sorted(path.name for path in trust.iterdir()) == names
    for path in trust.iterdir():
        assert b"PRIVATE KEY" not in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o644
