"""The command line: what goes to stdout, what to stderr, and the exit status."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sigward import __version__
from tests.needs import needs
from tests.shell import KEY, SECRET, TOKEN, Ran, Shell

# ---------------------------------------------------------------- in general


def test_version(sigward: Shell) -> None:
    assert sigward("--version") == Ran(0, f"sigward {__version__}\n", "")


def test_help_names_every_command(sigward: Shell) -> None:
    ran = sigward("--help")
    assert ran.status == 0
    for name in ("serve", "run", "sign", "explain", "token", "whoami", "env", "ca", "check", "demo"):
        assert f"  {name} " in ran.out
        helped = sigward(name, "--help")
        assert helped.status == 0
        assert f"sigward {name}" in helped.out


def test_nothing_and_nonsense(sigward: Shell) -> None:
    assert sigward().status == 64
    ran = sigward("serv")
    assert ran.status == 64
    assert "serve" in ran.err


@pytest.mark.parametrize("command", [["--version"], ["--help"], ["env"]])
def test_what_is_quick_imports_nothing_heavy(sigward: Shell, command: list[str]) -> None:
    sigward("ca", "path")
    script = (
        "import sys; from sigward.cli import main; status = main(); "
        "heavy = {'mitmproxy', 'botocore', 'boto3', 'cryptography'} & {name.partition('.')[0] for name in sys.modules}; "
        "print(sorted(heavy), file=sys.stderr); sys.exit(status)"
    )
    sigward.environment["AWS_REGION"] = "eu-west-1"
    ran = subprocess.run(
        [sys.executable, "-c", script, *command], cwd=sigward.home, env=sigward.environment, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "[]\n")


@pytest.mark.parametrize("command", ["serve", "whoami", "env", "ca", "check"])
def test_settings_that_do_not_hold_end_with_64(sigward: Shell, command: str) -> None:
    sigward.settings("[timeouts]\nconect = 1\n")
    ran = sigward(command, *(["path"] if command == "ca" else []))
    assert ran == Ran(64, "", "error: sigward.toml:2: timeouts.conect: there is no such setting.\nhint: Did you mean connect?\n")


MISTYPED = '[[route]]\nname = "deletes"\noperation = "s3:DeleteObjet"\naction = "deny"\n'


@pytest.mark.parametrize("command", [("serve", "--admin", "off"), ("web",), ("run", "--", "true"), ("check",)], ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (MISTYPED, 'route deletes: operation: "s3:DeleteObjet" is no operation of s3; did you mean s3:DeleteObject?'),
        ('[[pace]]\noperation = "ec2:RunInstance"\nrate = 1\n', "pace #1: operation: "),
        ('[[route]]\noperation = "s3:ListBucket"\n', "is an IAM action, not an operation; the operations that need it are s3:HeadBucket, "),
    ],
    ids=["route", "pace", "action"],
)
def test_a_rule_that_names_no_operation_ends_with_64(sigward: Shell, command: tuple[str, ...], settings: str, said: str) -> None:
    sigward.settings(f'listen = "127.0.0.1:0"\n{settings}')
    ran = sigward.keys()(*command)
    assert (ran.status, ran.out) == (64, "")
    assert said in " ".join(ran.err.split()), ran.err


def test_a_rule_that_is_unchecked_is_accepted(sigward: Shell) -> None:
    sigward.settings(f"{MISTYPED}unchecked = true\n")
    ran = sigward.keys()("check")
    assert ran.status == 0, ran.err
    assert "warning" not in ran.out


def test_rules_that_look_wrong_are_told(sigward: Shell) -> None:
    sigward.settings('[[route]]\noperation = "dynamdb:PutItem"\naction = "deny"\n\n[[route]]\nbucket = "s3://team/logs"\naction = "deny"\n')
    told = (
        "route #1: operation: the table (botocore",
        "did you mean dynamodb:PutItem?",
        'route #2: bucket: "s3://team/logs" is a URL, and no bucket has such a name; write "team/logs"',
    )
    checked = sigward.keys()("check")
    assert checked.status == 0, checked.err
    assert checked.out.count("warning      ") == 2
    ran = sigward("run", "--", "true")
    assert ran.status == 0, ran.err
    assert ran.err.count(" WARNING ") == 2
    for text in told:
        assert text in checked.out
        assert text in ran.err


def test_no_colour_in_a_pipe_and_with_no_color(sigward: Shell) -> None:
    assert "\x1b" not in sigward("serv").err
    sigward.environment |= {"FORCE_COLOR": "1"}
    assert "\x1b[3" in sigward("serv").err, "colours are there when they are wanted"
    sigward.environment |= {"NO_COLOR": "1"}
    assert "\x1b[3" not in sigward("serv").err


def test_a_reader_that_goes_away_is_no_crash(sigward: Shell) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = subprocess.run(
            sigward.command("env"), cwd=sigward.home, env=sigward.environment, stdout=writer, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writer)
    assert (ran.returncode, ran.stderr) == (141, "")


# ---------------------------------------------------------------- sign


def test_sign_agrees_with_botocore(sigward: Shell) -> None:
    sigward.keys()
    url, body = "https://dynamodb.eu-west-1.amazonaws.com/", '{"TableName": "x"}'
    ran = sigward(
        "sign",
        "POST",
        url,
        "--header",
        "content-type: application/x-amz-json-1.0",
        "--data",
        body,
        "--at",
        "2015-08-30T12:36:00Z",
        "--json-output",
    )
    assert ran.status == 0, ran.err
    told = json.loads(ran.out)
    request = AWSRequest(
        "POST",
        url,
        data=body.encode(),
        headers={
            "host": "dynamodb.eu-west-1.amazonaws.com",
            "content-type": "application/x-amz-json-1.0",
            "X-Amz-Date": "20150830T123600Z",
        },
    )
    request.context["timestamp"] = "20150830T123600Z"
    auth = SigV4Auth(Credentials(KEY, SECRET), "dynamodb", "eu-west-1")
    canonical = auth.canonical_request(request)
    assert told["canonical_request"] == canonical
    assert told["string_to_sign"] == auth.string_to_sign(request, canonical)
    assert told["signature"] == auth.signature(auth.string_to_sign(request, canonical), request)
    assert told["headers"]["authorization"].endswith(told["signature"])


def test_sign_shows_four_steps_and_no_secret(sigward: Shell) -> None:
    ran = sigward.keys(token=True)("sign", "GET", "https://bucket.s3.amazonaws.com/a%20key?list-type=2")
    assert ran.status == 0, ran.err
    for step in ("Canonical request", "String to sign", "Signature", "Headers to add"):
        assert step in ran.out
    assert SECRET not in ran.out + ran.err
    assert TOKEN not in ran.out + ran.err
    assert "x-amz-security-token" in ran.out


def test_sign_takes_bytes_from_a_file(sigward: Shell) -> None:
    (sigward.home / "body").write_bytes(b"\x00\xff")
    ran = sigward.keys()("sign", "PUT", "https://bucket.s3.amazonaws.com/key", "--data-file", "body", "--json-output")
    assert "06eb7d6a69ee19e5fbdf749018d3d2abfa04bcbd1365db312eb86dc7169389b8" in json.loads(ran.out)["canonical_request"]


def test_sign_of_another_host_needs_service(sigward: Shell) -> None:
    for url in ("https://api.example.com/", "https://new-thing.us-east-1.amazonaws.com/"):
        assert "--service" in sigward.keys()("sign", "GET", url).err
    ran = sigward("sign", "GET", "https://api.example.com/", "--service", "execute-api", "--region", "eu-west-1", "--json-output")
    assert (json.loads(ran.out)["service"], json.loads(ran.out)["region"]) == ("execute-api", "eu-west-1")


@pytest.mark.parametrize(
    "bad",
    [
        ["GET", "not a url"],
        ["GET", "https://"],
        ["GET", "https://x:99999/"],
        ["G E T", "https://sqs.us-east-1.amazonaws.com/"],
        ["GET", "https://sqs.us-east-1.amazonaws.com/", "--at", "soon"],
        ["GET", "https://sqs.us-east-1.amazonaws.com/", "--header", "nonsense"],
        ["GET"],
    ],
)
def test_sign_refuses(sigward: Shell, bad: list[str]) -> None:
    assert sigward.keys()("sign", *bad).status == 64


# ---------------------------------------------------------------- whoami, check


def test_whoami(sigward: Shell) -> None:
    sigward.environment["AWS_REGION"] = "eu-west-1"
    ran = sigward.keys(token=True)("whoami")
    assert ran.status == 0
    for told in ("env", "never", "eu-west-1", "AWS_REGION"):
        assert told in ran.out
    assert SECRET not in ran.out
    assert TOKEN not in ran.out
    assert json.loads(sigward("whoami", "--json-output").out)["region_from"] == "AWS_REGION"


def test_whoami_of_a_role(sigward: Shell, moto: str) -> None:
    (sigward.home / "credentials").write_text("[source]\naws_access_key_id = AKIDSOURCE\naws_secret_access_key = one\n")
    (sigward.home / "config").write_text(
        "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = source\nregion = eu-north-1\n"
    )
    sigward.environment["AWS_ENDPOINT_URL_STS"] = moto
    told = json.loads(sigward("whoami", "--profile", "role", "--json-output").out)
    assert (told["provider"], told["temporary"], told["region"], told["region_from"]) == ("assume-role", True, "eu-north-1", "profile role")
    assert told["expires"].endswith("Z")


def test_whoami_explains_the_chain(sigward: Shell, moto: str) -> None:
    sigward.settings('[identities.ops]\nrole_arn = "arn:aws:iam::123456789012:role/ops"\nprofile = "source"\n')
    (sigward.home / "credentials").write_text(f"[source]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    sigward.environment["AWS_ENDPOINT_URL_STS"] = moto
    told = json.loads(sigward("whoami", "--profile", "source", "--explain", "--account", "--json-output").out)
    states = {step["provider"]: step["state"] for step in told["chain"]}
    assert states["shared-credentials-file"] == "used"
    assert states["assume-role"] == "passed over"
    assert states["iam-role"] == "not asked"
    assert told["account"] == "123456789012"
    ran = sigward("whoami", "--identity", "ops", "--explain")
    assert "shared-credentials-file → identity-role" in ran.out
    assert SECRET not in ran.out + ran.err
    assert sigward("whoami", "--identity", "nobody").status == 64
    sigward.environment["AWS_ENDPOINT_URL_STS"] = "http://127.0.0.1:1"
    ran = sigward("whoami", "--identity", "ops", "--explain")
    assert ran.status == 77
    assert "identity-role" in ran.out
    assert "failed" in ran.out


def test_whoami_without_keys(sigward: Shell) -> None:
    ran = sigward("whoami")
    assert (ran.status, ran.out) == (77, "")
    for provider in ("env", "assume-role", "sso", "custom-process", "container-role", "iam-role"):
        assert f"  {provider}: " in ran.err


def test_check(sigward: Shell) -> None:
    assert sigward("check").status == 77
    ran = sigward.keys()("check", "--reverse", "127.0.0.1:0=https://sqs.us-east-1.amazonaws.com")
    assert ran.status == 0, ran.err
    for told in ("127.0.0.1:8080", "sqs.us-east-1.amazonaws.com", "127.0.0.1:9901", "env"):
        assert told in ran.out
    (sigward.home / ".config/sigward/ca/mitmproxy-ca.pem").chmod(0o644)
    assert sigward("check").status in (77, 78)


# ---------------------------------------------------------------- env, ca


def test_env_is_for_eval(sigward: Shell) -> None:
    sigward.keys(token=True)
    script = 'eval "$("$@")"; echo "$HTTPS_PROXY|$AWS_ACCESS_KEY_ID|${AWS_SESSION_TOKEN-gone}|$AWS_CA_BUNDLE"'
    ran = subprocess.run(
        ["sh", "-c", script, "sh", *sigward.command("env")], env=sigward.environment, cwd=sigward.home, capture_output=True, text=True
    )
    proxy, key, token, bundle = ran.stdout.strip().split("|")
    assert (proxy, token) == ("http://127.0.0.1:8080", "gone")
    assert key != KEY
    assert "BEGIN CERTIFICATE" in Path(bundle).read_text()


def test_env_for_another_container_writes_nothing(sigward: Shell) -> None:
    ran = sigward("env", "--proxy", "http://127.0.0.1:8080", "--trust-dir", "/var/lib/sigward-trust", "--shell", "kubernetes")
    assert ran.status == 0, ran.err
    assert '- name: AWS_CA_BUNDLE\n  value: "/var/lib/sigward-trust/bundle.pem"\n' in ran.out
    assert not (sigward.home / ".config/sigward/ca").exists()
    for proxy in ("ftp://127.0.0.1:8080", "127.0.0.1:8080", "http://127.0.0.1", "http://a:b@127.0.0.1:1"):
        ran = sigward("env", "--proxy", proxy)
        assert ran.status == 64, proxy
        assert "http://HOST:PORT" in ran.err
    assert "HTTPS_PROXY=https://proxy.internal:8080" in sigward("env", "--proxy", "https://proxy.internal:8080").out


@pytest.mark.parametrize("command", [("env",), ("run", "--", "true")], ids=lambda words: words[0])
def test_a_no_proxy_that_covers_what_is_signed_for(command: tuple[str, ...], sigward: Shell) -> None:
    """Calls there would go past sigward."""
    sigward.environment |= {"NO_PROXY": "intranet.example,.amazonaws.com", "no_proxy": "search.internal.example"}
    sigward.settings('[[route]]\nhost = "search.internal.example"\nservice = "es"\n')
    ran = sigward.keys()(*command)
    assert ran.status == 0, ran.err
    for entry in (".amazonaws.com", "search.internal.example"):
        assert f"warning: NO_PROXY names {entry!r}" in ran.err
    assert "intranet.example'" not in ran.err


def test_env_without_a_forward_listener(sigward: Shell) -> None:
    for listen in ("off", "127.0.0.1:0"):
        assert sigward("env", "--listen", listen, "--reverse", "127.0.0.1:0").status == 64


def test_a_ca_for_the_routes_of_today(sigward: Shell) -> None:
    """A route that the CA was not made for is an error with its mend; after that, all is well."""
    before = sigward.keys()("ca", "export").out
    sigward.settings('[[route]]\nhost = "*.internal.example"\nservice = "es"\n')
    ran = sigward("check")
    assert ran.status == 78
    assert "does not vouch for internal.example" in ran.err
    assert "credentials" in ran.out, "they are looked at all the same"
    assert "sigward ca renew" in ran.err
    assert sigward("ca", "renew").status == 0
    assert sigward("check").status == 0
    assert sigward("ca", "export").out != before


def test_a_pattern_that_no_ca_can_be_limited_to(sigward: Shell) -> None:
    """Renewing does not help there, naming domains does."""
    sigward.settings('[[route]]\nhost = "search-*"\nservice = "es"\n')
    ran = sigward.keys()("check")
    assert ran.status == 78
    assert "does not vouch for search-*" in ran.err
    assert "`ca_names`" in ran.err
    ran = sigward("ca", "renew")
    assert ran.status == 0
    assert "warning: " in ran.err
    assert "`ca_names`" in ran.err
    ran = sigward("check", "--ca-names", "internal.example")
    assert ran.status == 78
    assert "does not vouch for internal.example" in ran.err
    ran = sigward("ca", "renew", "--ca-names", "internal.example")
    assert "warning" not in ran.err
    assert sigward("check", "--ca-names", "internal.example").status == 0


def test_a_ca_with_another_key_than_the_settings_ask_for(sigward: Shell) -> None:
    assert sigward.keys()("check").status == 0
    ran = sigward("check", "--ca-key", "rsa2048")
    assert ran.status == 78
    assert "has an EC key, and ca_key is rsa2048" in ran.err
    assert sigward("ca", "renew", "--ca-key", "rsa2048").status == 0
    assert sigward("check", "--ca-key", "rsa2048").status == 0
    assert sigward("check").status == 0


@pytest.mark.parametrize("name", ["*.internal.example", "a..b", "-a", "a b", "10.0.0.0/8"])
def test_names_that_no_ca_can_vouch_for(name: str, sigward: Shell) -> None:
    ran = sigward("check", "--ca-names", name)
    assert ran.status == 64
    assert "ca-names" in ran.err
    assert "hint:" in ran.err


def test_ca(sigward: Shell) -> None:
    path = Path(sigward("ca", "path").out.strip())
    assert path.read_text() == sigward("ca", "export").out
    assert "PRIVATE" not in sigward("ca", "export").out
    told = sigward("ca", "trust").out
    assert str(path) in told
    for system in ("Debian", "Fedora", "macOS"):
        assert system in told
    assert sigward("ca", "burn").status == 64


# ---------------------------------------------------------------- serve, run


def ready(process: subprocess.Popen[str]) -> dict[str, str]:
    """Reads stderr up to the ready line; gives its addresses."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if "listening" in line:
            return dict(part.split("=", 1) for part in line.split("listening ")[1].split())
    raise AssertionError(f"it ended: {seen}")


@pytest.mark.parametrize("level", ["info", "error"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_when_it_is_ready_and_stops_on_a_signal(sigward: Shell, number: signal.Signals, level: str) -> None:
    process = sigward.keys().start(
        "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--reverse", "127.0.0.1:0", "--log-level", level
    )
    try:
        told = ready(process)
        assert set(told) == {"forward", "reverse:0", "admin"}
        opener = build_opener(ProxyHandler({}))
        assert opener.open(f"http://{told['admin']}/healthz", timeout=10).status == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "")
        assert "Traceback" not in err
    finally:
        process.kill()
        process.communicate()


def test_sighup_reads_credentials_anew(sigward: Shell) -> None:
    process = sigward.keys().start("serve", "--listen", "127.0.0.1:0", "--admin", "off")
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert process.stderr is not None
        loads, sent = 0, False
        for line in process.stderr:
            loads += "credentials from env" in line
            sent |= "listening" in line
            if loads == 1 and sent and process.poll() is None:
                process.send_signal(signal.SIGHUP)
                sent = False
            if loads == 2:
                break
        assert loads == 2
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


@pytest.mark.parametrize("front", ["mitmproxy", "native"])
def test_sighup_takes_changed_settings_and_leaves_wrong_ones(sigward: Shell, front: str) -> None:
    file = sigward.home / "sigward.toml"
    host = "sqs.us-east-1.amazonaws.com"
    file.write_text("")
    listens = ("--listen", "off", "--reverse", f"127.0.0.1:0=https://{host}", "--admin", "off", "--front", front)
    process = sigward.keys().start("serve", *listens, "--config", str(file))
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    assert process.stderr is not None

    def until(said: str) -> str:
        for line in process.stderr or ():
            if said in line:
                return line
        raise AssertionError(f"it never said {said!r}")

    try:
        address = until("listening").rpartition("=")[2].strip()
        for route, said in (
            ('[[route]]\nhost = "sqs.*"\naction = "deny"\n', "settings and credentials are read anew"),
            ('[[route]]\nhost = "sqs.*"\naction = "sing"\n', "the settings are left as they were"),
            (
                '[[route]]\noperation = "sqs:ListQueue"\naction = "deny"\n',
                'the settings are left as they were: route #1: operation: "sqs:ListQueue" is no operation of sqs; '
                "did you mean sqs:ListQueues?",
            ),
            (
                '[[route]]\nhost = "sqs.*"\naction = "deny"\n[[route]]\nhost = "sqs.us-east-1.amazonaws.com"\n',
                "route #2: route #1 comes first",
            ),
        ):
            file.write_text(route)
            process.send_signal(signal.SIGHUP)
            until(said)
            connection = http.client.HTTPConnection(address, timeout=30)
            connection.request("GET", "/?Action=ListQueues")
            response = connection.getresponse()
            assert (response.status, response.getheader("x-sigward-error")) == (403, "denied")
            connection.close()
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def test_serve_on_an_address_in_use(sigward: Shell) -> None:
    process = sigward.keys().start("serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    try:
        told = ready(process)
        assert sigward("serve", "--listen", told["forward"], "--admin", "off").status == 69
        assert sigward("serve", "--listen", "127.0.0.1:0", "--admin", told["admin"]).status == 69
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_run_gives_the_programs_status(sigward: Shell) -> None:
    sigward.keys()
    assert sigward("run", "--", "sh", "-c", "exit 7").status == 7
    assert sigward("run", "--", "sh", "-c", "kill -TERM $$").status == 128 + signal.SIGTERM
    assert sigward("run", "--", "true") == Ran(0, "", "")


def test_run_hands_over_stdin_and_stdout(sigward: Shell) -> None:
    ran = subprocess.run(
        sigward.keys().command("run", "--", "tr", "a-z", "A-Z"),
        env=sigward.environment,
        cwd=sigward.home,
        input="data",
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (0, "DATA")


def test_run_of_what_is_not_there(sigward: Shell) -> None:
    """As a shell: 127 not found, 126 not executable."""
    sigward.keys()
    (sigward.home / "file").write_text("")
    for program, status in (("no-such-program", 127), ("./file", 126)):
        ran = sigward("run", "--", program)
        assert ran.status == status
        assert "hint: " in ran.err


def test_run_without_a_program(sigward: Shell) -> None:
    assert sigward("run").status == 64
    assert sigward("run", "true").status == 64


def test_run_hides_the_keys_and_names_the_proxy(sigward: Shell) -> None:
    ran = sigward.keys(token=True)("run", "--region", "eu-west-1", "--", "env")
    assert SECRET not in ran.out
    assert TOKEN not in ran.out
    assert KEY not in ran.out
    found = dict(line.split("=", 1) for line in ran.out.splitlines() if "=" in line)
    assert found["HTTPS_PROXY"].startswith("http://127.0.0.1:")
    assert not found["HTTPS_PROXY"].endswith((":0", ":8080"))
    assert found["AWS_REGION"] == "eu-west-1"


def test_run_ignores_the_port_that_serve_uses(sigward: Shell) -> None:
    """A file written for `serve`, with `serve` running, must not be in the way."""
    sigward.keys()
    sigward.settings('listen = "127.0.0.1:0"\nadmin = "127.0.0.1:0"\n')
    process = sigward.start("serve")
    try:
        told = ready(process)
        sigward.settings(f'listen = "{told["forward"]}"\nadmin = "{told["admin"]}"\n[[reverse]]\nlisten = "{told["forward"]}"\n')
        ran = sigward("run", "--", "sh", "-c", "echo $HTTPS_PROXY")
        assert ran.status == 0, ran.err
        assert told["forward"] not in ran.out
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_run_passes_signals_on(sigward: Shell, number: signal.Signals) -> None:
    script = f"import signal, sys; signal.signal({int(number)}, lambda *_: sys.exit(33)); print('set', flush=True); signal.pause()"
    process = sigward.keys().start("run", "--", sys.executable, "-c", script)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "set\n"
        process.send_signal(number)
        process.communicate(timeout=30)
        assert process.returncode == 33
    finally:
        process.kill()
        process.communicate()


@needs("curl")
def test_curl_through_run_is_answered_by_sigward(sigward: Shell) -> None:
    """Without keys: the error is sigward's own, over TLS that curl trusts by the bundle."""
    ran = sigward("run", "--no-credentials-ok", "--", "curl", "-sS", "-D", "-", "https://sqs.us-east-1.amazonaws.com/?Action=ListQueues")
    assert ran.status == 0, ran.err
    assert " 503" in ran.out.splitlines()[0] or any(" 503" in line for line in ran.out.splitlines())
    assert "x-sigward-error: no-credentials" in ran.out.lower()


# ---------------------------------------------------------------- shutdown


class Slow(BaseHTTPRequestHandler):
    """Answers when the test lets it."""

    arrived = threading.Event()
    release = threading.Event()

    def do_GET(self) -> None:
        self.arrived.set()
        self.release.wait(60)
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"late")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def slow() -> Iterator[str]:
    Slow.arrived.clear()
    Slow.release.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    Slow.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Serving:
    """A `sigward serve` with one request under way."""

    process: subprocess.Popen[str]
    admin: str
    answers: "Future[bytes]"

    def not_ready(self) -> None:
        """Waits until it says so."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with suppress(HTTPError):
                if build_opener(ProxyHandler({})).open(f"http://{self.admin}/readyz", timeout=10).status == 200:
                    continue
            return
        raise AssertionError("it stays ready")


@contextmanager
def one_under_way(sigward: Shell, slow: str, *arguments: str) -> Iterator[Serving]:
    route = json.dumps([{"host": "slow.test", "action": "pass", "upstream": slow}])
    process = sigward.keys().start(
        "serve", "--listen", "off", "--admin", "127.0.0.1:0", "--reverse", "127.0.0.1:0", "--route", route, *arguments
    )
    pool = ThreadPoolExecutor(1)
    try:
        told = ready(process)
        request = Request(f"http://{told['reverse:0']}/", headers={"Host": "slow.test"})
        answers = pool.submit(lambda: build_opener(ProxyHandler({})).open(request, timeout=60).read())
        assert Slow.arrived.wait(20), answers.exception(0) if answers.done() else "nothing arrives"
        yield Serving(process, told["admin"], answers)
    finally:
        Slow.release.set()
        process.kill()
        process.communicate()
        pool.shutdown()


def test_what_is_under_way_may_finish(sigward: Shell, slow: str) -> None:
    with one_under_way(sigward, slow) as serving:
        serving.process.terminate()
        serving.not_ready()
        assert serving.process.poll() is None, "it waits"
        Slow.release.set()
        assert serving.answers.result(30) == b"late"
        assert serving.process.wait(30) == 0


def test_the_grace_ends(sigward: Shell, slow: str) -> None:
    with one_under_way(sigward, slow, "--grace", "100ms") as serving:
        serving.process.terminate()
        assert serving.process.wait(30) == 0
        assert serving.answers.exception(30) is not None


def test_a_second_signal_ends_it_at_once(sigward: Shell, slow: str) -> None:
    with one_under_way(sigward, slow, "--grace", "1h") as serving:
        serving.process.terminate()
        serving.not_ready()
        serving.process.terminate()
        assert serving.process.wait(30) != 0
