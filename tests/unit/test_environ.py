"""The variables for programs: real shells read them."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from sigward.clients import IssuedKey
from sigward.environ import NO_PROXY, REMOVED, ClientEnvironment, java_quoted, passed_by, without_own_proxy
from sigward.errors import UsageError
from sigward.trust import Trust
from tests.needs import need

TRUST = Trust(Path("/etc/it's a place"))
CLIENT = ClientEnvironment("http://127.0.0.1:8080", TRUST, "eu-west-1")

REAL = {
    "AWS_ACCESS_KEY_ID": "AKIDREAL",
    "AWS_SECRET_ACCESS_KEY": "real-secret",
    "AWS_SESSION_TOKEN": "real-token",
    "AWS_SECURITY_TOKEN": "real-token",
    "AWS_PROFILE": "real",
    "AWS_DEFAULT_PROFILE": "real",
    "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/real",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/real",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/real",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/real",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN": "real-token",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/var/run/real",
    "AWS_CREDENTIAL_EXPIRATION": "2099-01-01T00:00:00Z",
    "AWS_ACCESS_KEY": "AKIDREAL",
    "AWS_SECRET_KEY": "real-secret",
    "AWS_BEARER_TOKEN_BEDROCK": "real-token",
    "AWS_BEARER_TOKEN_OF_NEXT_YEARS_SERVICE": "real-token",
}


def test_the_real_keys_never_reach_the_program() -> None:
    made = CLIENT.applied_to({**REAL, "HOME": "/root", "AWS_REGION": "us-west-2"})
    assert not [name for name, value in made.items() if "real" in value.lower()]
    assert made["HOME"] == "/root"
    assert made["AWS_REGION"] == made["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert "DUMMY" in made["AWS_ACCESS_KEY_ID"]
    assert made["AWS_EC2_METADATA_DISABLED"] == "true"


def test_no_second_proxy_stays() -> None:
    made = CLIENT.applied_to({"ALL_PROXY": "socks5://x", "all_proxy": "socks5://x", "https_proxy": "http://other"})
    assert {value for name, value in made.items() if name.lower() in ("http_proxy", "https_proxy", "all_proxy")} == {
        "http://127.0.0.1:8080"
    }


def test_metadata_and_this_host_go_past_the_proxy() -> None:
    made = CLIENT.variables()
    assert made["NO_PROXY"] == made["no_proxy"] == NO_PROXY
    for name in (
        "localhost",
        "127.0.0.1",
        "127.0.0.0/8",
        "::1",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "fd00:ec2::254",
        "fd00:ec2::23",
    ):
        assert name in NO_PROXY.split(",")


def test_the_persons_own_no_proxy_is_kept() -> None:
    made = CLIENT.applied_to({"NO_PROXY": "intranet.example.com", "no_proxy": "intranet.example.com"})
    for name in ("NO_PROXY", "no_proxy"):
        assert "intranet.example.com" in made[name].split(",")
        assert "169.254.169.254" in made[name].split(",")


@pytest.mark.parametrize("make", [CLIENT.applied_to, without_own_proxy])
def test_both_spellings_get_what_either_had(make: Callable[[dict[str, str]], dict[str, str]]) -> None:
    made = make({"NO_PROXY": "one.example, two.example", "no_proxy": "two.example,three.example"})
    assert made["NO_PROXY"] == made["no_proxy"]
    hosts = made["NO_PROXY"].split(",")
    assert {"one.example", "two.example", "three.example", *NO_PROXY.split(",")} <= set(hosts)
    assert len(hosts) == len(set(hosts))


def test_httpx_can_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises InvalidURL at an IPv6 address in brackets, before any request."""
    for name, value in CLIENT.variables().items():
        if name.lower() in ("no_proxy", "https_proxy"):
            monkeypatch.setenv(name, value)
    with httpx.Client():
        pass


@pytest.mark.parametrize(
    ("entry", "covers"),
    [
        ("*", True),
        ("amazonaws.com", True),
        (".amazonaws.com", True),
        ("*.amazonaws.com:443", True),
        (".amazonaws.com.cn", True),
        ("com", True),
        ("us-east-1.amazonaws.com", True),
        ("s3.us-east-1.amazonaws.com", True),
        ("bucket.s3.us-east-1.amazonaws.com", True),
        (".es.amazonaws.com", True),
        (".on.aws", True),
        ("search.internal.example", True),
        ("internal.example", True),
        ("10.0.0.0/8", True),
        ("10.0.0.7", True),
        ("elb.amazonaws.com", False),
        ("evilamazonaws.com", False),
        ("other.example", False),
        ("10.0.0.8", False),
        ("192.168.0.0/16", False),
        ("localhost", False),
        ("127.0.0.0/8", False),
        ("169.254.169.254", False),
    ],
)
def test_what_goes_past_sigward(entry: str, covers: bool) -> None:
    names = ("search.internal.example", "10.0.0.7", "logs.*")
    assert passed_by({"NO_PROXY": f"a.example,{entry}"}, names) == ([entry] if covers else [])
    assert passed_by({"no_proxy": f"a.example {entry}"}, names) == ([entry] if covers else [])


def test_php_keeps_its_own_directory() -> None:
    ours = str(TRUST.directory)
    for own, expected in (("", f":{ours}"), ("/etc/own", f"/etc/own:{ours}"), (f":{ours}", f":{ours}"), (f"/a::{ours}", f"/a::{ours}")):
        assert CLIENT.variables({"PHP_INI_SCAN_DIR": own})["PHP_INI_SCAN_DIR"] == expected


def test_wget_keeps_the_persons_own_file(tmp_path: Path) -> None:
    ours = {"WGETRC": str(TRUST.wgetrc), "WGET2RC": str(TRUST.wget2rc)}

    def told(**own: str) -> dict[str, str]:
        made = CLIENT.applied_to({"HOME": str(tmp_path), **own})
        return {name: value for name, value in made.items() if name in ours}

    assert told() == told(**ours) == ours
    assert {name: value for name, value in CLIENT.variables().items() if name in ours} == ours
    assert told(WGETRC="/mine") == {**ours, "WGETRC": "/mine"}
    (tmp_path / ".wgetrc").touch()
    assert told() == {"WGET2RC": ours["WGET2RC"]}
    (tmp_path / ".config" / "wget").mkdir(parents=True)
    (tmp_path / ".config" / "wget" / "wget2rc").touch()
    assert told() == {}


def test_each_with_the_file_that_it_takes() -> None:
    made = CLIENT.variables()
    for name in (
        "AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "CARGO_HTTP_CAINFO",
        "PERL_LWP_SSL_CA_FILE",
    ):  # fmt: skip
        assert made[name] == str(TRUST.bundle)
    for name in ("NODE_EXTRA_CA_CERTS", "DENO_CERT"):
        assert made[name] == str(TRUST.certificate)
    assert made["NODE_USE_ENV_PROXY"] == made["PERL_LWP_ENV_PROXY"] == "1"


PROPERTIES = """
public class Told {
    public static void main(String[] names) {
        for (String name : names) System.out.println(System.getProperty(name));
    }
}
"""


def test_java_takes_its_options_beside_those_that_are_there(tmp_path: Path) -> None:
    java = need("java")
    client = ClientEnvironment("http://[::1]:8080", Trust(Path("""/etc/it's "a" place""")), "eu-west-1")
    made = client.applied_to({"PATH": os.environ["PATH"], "JAVA_TOOL_OPTIONS": "-Done=1 -Dhttps.proxyHost=other"})
    source = tmp_path / "Told.java"
    source.write_text(PROPERTIES)
    names = ["one", "javax.net.ssl.trustStore", "https.proxyHost", "https.proxyPort", "http.proxyHost", "http.nonProxyHosts"]
    told = subprocess.run([java, str(source), *names], env=made, capture_output=True, text=True, check=True).stdout.splitlines()
    assert told[:5] == ["1", str(client.trust.truststore), "::1", "8080", "::1"]
    for host in ("localhost", "127.*", "[::1]", "169.254.169.254", "169.254.170.2", "169.254.170.23", "[fd00:ec2::254]"):
        assert host in told[5].split("|")


def test_javas_options_do_not_grow() -> None:
    """`eval "$(sigward env)"`, twice."""
    once = CLIENT.variables({"JAVA_TOOL_OPTIONS": "-Done=1"})
    assert once["JAVA_TOOL_OPTIONS"].startswith("-Done=1 ")
    assert CLIENT.variables(once) == once


def test_java_quotes() -> None:
    assert java_quoted("-Da=b") == "-Da=b"
    assert java_quoted("-Da=it's b") == """'-Da=it'"'"'s b'"""


def test_kubernetes_takes_a_list(tmp_path: Path) -> None:
    key = IssuedKey("KEY", "a$(secret)\\")
    made = ClientEnvironment("http://127.0.0.1:8080", TRUST, "eu-west-1", key)
    found = yaml.safe_load(made.script("kubernetes"))
    assert [entry["name"] for entry in found] == list(made.variables())
    values = {entry["name"]: entry["value"] for entry in found}
    assert values.pop("AWS_SECRET_ACCESS_KEY") == "a$$(secret)\\"
    assert values == {name: value for name, value in made.variables().items() if name != "AWS_SECRET_ACCESS_KEY"}


@pytest.mark.parametrize("shell", ["sh", "bash", "fish"])
def test_shells_read_it(shell: str) -> None:
    need(shell)
    script = CLIENT.script("fish" if shell == "fish" else "sh", REAL)
    read = "env -0"
    ran = subprocess.run([shell, "-c", f"{script}\n{read}"], env={"PATH": os.environ["PATH"], **REAL}, capture_output=True, check=True)
    found = dict(line.split("=", 1) for line in ran.stdout.decode().split("\0") if "=" in line)
    assert {name: found.get(name) for name in CLIENT.variables()} == CLIENT.variables()
    assert not (set(REMOVED) | {name for name in REAL if "BEARER" in name}) & set(found)
    assert ran.stderr == b""


@pytest.mark.parametrize("shell", ["sh", "fish"])
def test_no_name_of_a_variable_is_run(shell: str, tmp_path: Path) -> None:
    names = [
        f"AWS_BEARER_TOKEN_{end}" for end in (f";touch {tmp_path}/ran;", f"$(touch {tmp_path}/ran)", f"\ntouch {tmp_path}/ran", "É", "-v")
    ]
    script = CLIENT.script(shell, {**dict.fromkeys(names, "x"), "AWS_BEARER_TOKEN_GOOD": "x"})
    assert [line.split()[-1] for line in script.splitlines() if "BEARER" in line] == ["AWS_BEARER_TOKEN_BEDROCK", "AWS_BEARER_TOKEN_GOOD"]
    if shutil.which(shell):
        subprocess.run([shell, "-c", script], check=False)
    assert not (tmp_path / "ran").exists()


HARD = r"""a\b \' '\\' "$HOME" `id` $(id) %d * \n"""


@pytest.mark.parametrize("shell", ["sh", "fish"])
def test_hard_values_stay_what_they_are(shell: str) -> None:
    made = ClientEnvironment("http://127.0.0.1:8080", TRUST, "eu-west-1", IssuedKey("KEY", HARD))
    script = made.script(shell)
    if shell == "fish":
        assert f"set -gx AWS_SECRET_ACCESS_KEY '{HARD.replace(chr(92), chr(92) * 2).replace(chr(39), chr(92) + chr(39))}'\n" in script
    if shutil.which(shell):
        said = subprocess.run([shell, "-c", f"{script}\nprintenv AWS_SECRET_ACCESS_KEY"], capture_output=True, text=True, check=True).stdout
        assert said == f"{HARD}\n"


@pytest.mark.parametrize("secret", ["a\nB=1", "a\r", "a$$b $$(C) $(D) $"])
def test_files_of_variables_keep_values_apart(secret: str) -> None:
    """Kubernetes makes one `$` of two, before it looks for `$(NAME)`."""
    made = ClientEnvironment("http://127.0.0.1:8080", TRUST, "eu-west-1", IssuedKey("KEY", secret))
    entries = {entry["name"]: entry["value"] for entry in yaml.safe_load(made.script("kubernetes"))}
    assert list(entries) == list(made.variables())
    assert entries["AWS_SECRET_ACCESS_KEY"].replace("$$", "\0").count("$") == 0
    assert entries["AWS_SECRET_ACCESS_KEY"].replace("$$", "$") == secret
    if "$" in secret:
        assert f"AWS_SECRET_ACCESS_KEY={secret}" in made.script("docker").splitlines()
    else:
        with pytest.raises(UsageError, match="AWS_SECRET_ACCESS_KEY: Docker's files"):
            made.script("docker")


def test_docker_takes_values_as_they_are() -> None:
    lines = CLIENT.script("docker").splitlines()
    assert f"AWS_CA_BUNDLE={TRUST.bundle}" in lines
    assert all("=" in line for line in lines)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"])
def test_sigward_does_not_call_through_itself(proxy: str) -> None:
    made = without_own_proxy({"HTTPS_PROXY": proxy, "https_proxy": proxy, "HTTP_PROXY": proxy, "KEPT": "1"})
    assert not [name for name in made if name.lower() in ("https_proxy", "http_proxy")]
    assert made["KEPT"] == "1"


def test_a_companys_proxy_stays_but_not_for_metadata() -> None:
    made = without_own_proxy({"HTTPS_PROXY": "http://proxy.example.com:3128", "NO_PROXY": "intranet"})
    assert made["HTTPS_PROXY"] == "http://proxy.example.com:3128"
    assert made["NO_PROXY"].split(",")[0] == "intranet"
    # botocore compares what stands in the URL.
    assert {"169.254.169.254", "fd00:ec2::254", "[fd00:ec2::254]", "[::1]"} <= set(made["NO_PROXY"].split(","))
