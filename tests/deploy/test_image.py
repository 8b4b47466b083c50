"""deploy/docker/Dockerfile: both images built, and run as a careful cluster runs them."""

import json
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from sigward import __version__
from sigward.demo.emulator import Emulator
from sigward.demo.emulator_server import HOLD_HEADER
from tests.deploy import base, sidecar
from tests.deploy.conftest import DOCKERFILE, ROOT, Images
from tests.deploy.engine import OFTEN, USER, Workshop, build, compressed_size, output, wait_health, wait_output

pytestmark = pytest.mark.deploy

MEGABYTE = 1_000_000
LARGEST = 120 * MEGABYTE
"""Of the image `sigward`, compressed."""

IDENTITY = ["--data", "Action=GetCallerIdentity&Version=2011-06-15"]
CURL = ["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "30"]
BOTO3 = """
import boto3, botocore, sys
from botocore.config import Config
unsigned = Config(signature_version=botocore.UNSIGNED)
sts = boto3.client("sts", region_name="us-east-1", endpoint_url=sys.argv[1], config=unsigned)
print(sts.get_caller_identity()["Arn"])
"""


@pytest.fixture(params=["sigward", "inspect"])
def image(request: pytest.FixtureRequest, images: Images) -> str:
    """Both, one after the other."""
    return str(getattr(images, request.param))


def shell(workshop: Workshop, image: str, script: str) -> str:
    """Runs a script with an image's own shell; returns what it prints."""
    status, told = workshop.finish(image, ["-c", script], entrypoint="sh")
    assert status == 0, told
    return told


def python(workshop: Workshop, image: str, program: str) -> str:
    """Runs a program with an image's own Python; returns what it prints."""
    status, told = workshop.finish(image, ["-c", program], entrypoint="python")
    assert status == 0, told
    return told


def test_what_the_image_says_of_itself(engine: DockerClient, images: Images) -> None:
    for image, name, front in ((images.sigward, "sigward", "native"), (images.inspect, "sigward-inspect", "mitmproxy")):
        told = engine.images.get(image).attrs["Config"]
        labels = {key.removeprefix("org.opencontainers.image."): value for key, value in told["Labels"].items()}
        assert (labels["title"], labels["version"], labels["revision"], labels["licenses"]) == (name, __version__, "test", "Apache-2.0")
        assert (told["User"], told["StopSignal"], told["WorkingDir"]) == (f"{USER}:{USER}", "SIGTERM", "/var/lib/sigward")
        assert (told["Entrypoint"], told["Cmd"], told["Healthcheck"]["Test"]) == (["sigward"], ["serve"], ["CMD", "sigward", "healthcheck"])
        environment = dict(entry.split("=", 1) for entry in told["Env"])
        assert (environment["HOME"], environment["SIGWARD_FRONT"]) == ("/var/lib/sigward", front)
        assert not [name for name in environment if name.startswith("AWS_") or "PROXY" in name.upper()]


def test_the_sidecars_image_is_small(engine: DockerClient, images: Images) -> None:
    size = compressed_size(engine, images.sigward)
    print(f"compressed: {size / MEGABYTE:.1f} MB (goal {LARGEST / MEGABYTE:.0f})")
    assert MEGABYTE < size <= LARGEST


def test_it_runs_with_nothing_that_it_does_not_need(
    engine: DockerClient, workshop: Workshop, emulator: Emulator, image: str, tmp_path: Path
) -> None:
    container = sidecar.start(workshop, workshop.pod(image), image, emulator, tmp_path)
    wait_health(container)
    status = dict(line.split(":", 1) for line in container.exec_run(["cat", "/proc/1/status"]).output.decode().splitlines())
    assert status["Uid"].split() == [str(USER)] * 4
    assert [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 5
    assert status["NoNewPrivs"].strip() == "1"
    for place in ("/", "/opt/sigward", "/tmp", "/etc"):
        written = container.exec_run(["sh", "-c", f"echo x > {place}/new"])
        assert written.exit_code != 0, place
        assert b"Read-only file system" in written.output
    key = container.exec_run(["stat", "--format", "%a %u", "/var/lib/sigward/ca/mitmproxy-ca.pem"])
    assert key.output.decode().split() == ["600", str(USER)]
    assert container.exec_run(["sigward", "healthcheck"]).output == b"ready\n"
    assert "Traceback" not in output(container)


def test_a_large_body_is_spooled_where_it_may_be(workshop: Workshop, emulator: Emulator, images: Images, tmp_path: Path) -> None:
    pod = workshop.pod(images.client)
    container = sidecar.start(workshop, pod, images.sigward, emulator, tmp_path, top='body = { hold = "1KiB" }\n')
    wait_output(container, "listening ")
    padding = tmp_path / "padding"
    padding.write_text(f"Padding={'x' * 100_000}")
    padding.chmod(0o644)
    mounted = {str(padding): {"bind": "/padding", "mode": "ro"}}
    command = [*CURL, *IDENTITY, "--data", "@/padding", sidecar.STS]
    status, told = workshop.finish(images.client, command, network_mode=pod.network_mode, user="65531", volumes=mounted)
    assert (status, "GetCallerIdentityResult" in told) == (0, True), told
    assert emulator.requests()[-1].size > 100_000


@pytest.mark.parametrize("client", ["curl", "boto3"])
@pytest.mark.parametrize("way", ["endpoint URL", "HTTPS_PROXY"])
def test_another_containers_calls_are_signed(
    engine: DockerClient, workshop: Workshop, emulator: Emulator, images: Images, image: str, tmp_path: Path, way: str, client: str
) -> None:
    pod = workshop.pod(images.client)
    container = sidecar.start(workshop, pod, image, emulator, tmp_path)
    wait_health(container)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(container.exec_run(["sigward", "ca", "export"]).output)
    how: dict[str, Any] = {
        "network_mode": pod.network_mode,
        "user": "65531",
        "volumes": {str(trusted): {"bind": "/trusted.pem", "mode": "ro"}},
    }
    if way == "HTTPS_PROXY":
        how["environment"] = {"HTTPS_PROXY": sidecar.PROXY, "CURL_CA_BUNDLE": "/trusted.pem", "AWS_CA_BUNDLE": "/trusted.pem"}
    url = sidecar.STS if way == "endpoint URL" else "https://sts.us-east-1.amazonaws.com"
    before = len(emulator.requests())
    command = [*CURL, *IDENTITY, url] if client == "curl" else ["python3", "-c", BOTO3, url]
    status, told = workshop.finish(images.client, command, **how)
    assert (status, "user/demo" in told) == (0, True), told
    (arrived,) = emulator.requests(before)
    assert arrived.status == 200
    assert arrived.scope == (emulator.access_key_id, "us-east-1", "sts")


def test_a_container_with_a_network_of_its_own_reaches_it_where_that_is_meant(
    workshop: Workshop, emulator: Emulator, images: Images, tmp_path: Path
) -> None:
    network = workshop.network()
    given = sidecar.environment(emulator) | {"SIGWARD_REVERSE": "0.0.0.0:8081=https://sts.us-east-1.amazonaws.com", "SIGWARD_LISTEN": "off"}
    how: dict[str, Any] = {"network": network, "volumes": sidecar.settings(emulator, tmp_path, sidecar.AWS)}
    status, told = workshop.finish(images.sigward, ["serve"], environment=given, **how)
    assert (status, "hint: " in told, "allow_remote" in told) == (64, True, True), told
    container = workshop.run(images.sigward, environment=given | {"SIGWARD_ALLOW_REMOTE": "true"}, healthcheck=OFTEN, **how)
    workshop.pod_of(container).lead("127.0.0.1", sidecar.AWS_PORT, emulator.port)
    wait_health(container)
    container.reload()
    address = container.attrs["NetworkSettings"]["Networks"][network]["IPAddress"]
    status, told = workshop.finish(images.client, [*CURL, *IDENTITY, f"http://{address}:8081"], network=network, user="65531")
    assert (status, "user/demo" in told) == (0, True), told


def test_a_request_under_way_ends_before_the_container_does(
    engine: DockerClient, workshop: Workshop, emulator: Emulator, images: Images, image: str, tmp_path: Path
) -> None:
    pod = workshop.pod(images.client)
    container = sidecar.start(workshop, pod, image, emulator, tmp_path, top="grace = 30\n")
    wait_health(container)
    name = f"deploy-{container.short_id}"
    command = [*CURL, "--header", f"{HOLD_HEADER}: {name}", *IDENTITY, sidecar.STS]
    client = workshop.run(images.client, command, network_mode=pod.network_mode, user="65531")
    emulator.wait_held(name)
    stopping = threading.Thread(target=container.stop, kwargs={"timeout": 60})
    stopping.start()
    wait_output(container, "stopping: requests under way")
    assert container.exec_run(["sigward", "healthcheck"]).exit_code == 1
    emulator.release(name)
    status, told = workshop.ended(client)
    assert (status, "GetCallerIdentityResult" in told) == (0, True), told
    stopping.join()
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 0, output(container)[-2000:]


def test_without_credentials_it_is_not_healthy(engine: DockerClient, workshop: Workshop, images: Images) -> None:
    container = workshop.run(
        images.sigward, environment={"AWS_EC2_METADATA_DISABLED": "true"}, healthcheck={**OFTEN, "start_period": 1_000_000, "retries": 1}
    )
    wait_health(container, "unhealthy")
    said = container.exec_run(["sigward", "healthcheck"])
    assert said.exit_code == 1
    assert b"not ready: " in said.output
    assert b"credentials" in said.output


def test_nothing_that_builds_is_left(workshop: Workshop, image: str) -> None:
    programs = "pip pip3 uv maturin cargo rustc gcc cc as ld make g++ git curl wget"
    assert shell(workshop, image, f"for program in {programs}; do command -v $program; done; true") == ""
    program = """
import importlib.util
print([name for name in ("pip", "ensurepip", "setuptools", "pytest", "moto") if importlib.util.find_spec(name)])
"""
    assert python(workshop, image, program) == "[]\n"


def test_nobody_can_change_a_file_of_the_image(workshop: Workshop, image: str) -> None:
    assert shell(workshop, image, "find / -xdev -perm -0002 -type f 2>/dev/null; find /opt ! -user root") == ""


def test_no_key_is_in_the_image(workshop: Workshop, image: str) -> None:
    assert shell(workshop, image, "find /var/lib/sigward /var/lib/sigward-trust -mindepth 1") == ""
    # Not in others' packages: some have keys for their own tests, and examples.
    search = "grep --recursive --files-with-matches --binary-files=without-match --no-messages"
    wanted = "-e '^-----BEGIN .*PRIVATE KEY' -e '^aws_secret_access_key'"
    places = "/opt/sigward/bin /opt/sigward/lib/python3.13/site-packages/sigward* /etc /var /root /home"
    assert shell(workshop, image, f"{search} {wanted} {places}; true") == ""


def test_every_module_is_there_as_bytecode(workshop: Workshop, image: str) -> None:
    program = """
import importlib.util, pathlib, sys
site = next(path for path in sys.path if path.endswith("site-packages"))
modules = list(pathlib.Path(site).rglob("*.py"))
print(len(modules) > 500, [str(path) for path in modules if not pathlib.Path(importlib.util.cache_from_source(path)).exists()])
"""
    assert python(workshop, image, program) == "True []\n"


def test_mitmproxy_is_where_it_belongs(workshop: Workshop, images: Images) -> None:
    program = "import importlib.util as u; print([n for n in ('mitmproxy', 'tornado', 'uvloop') if u.find_spec(n)])"
    assert python(workshop, images.sigward, program) == "[]\n"
    assert python(workshop, images.inspect, program) == "['mitmproxy', 'tornado', 'uvloop']\n"


def test_the_sidecars_image_says_that_it_has_no_mitmproxy(workshop: Workshop, images: Images) -> None:
    status, told = workshop.finish(images.sigward, ["serve", "--front", "mitmproxy"])
    assert status == 64
    assert "error: front: mitmproxy is not installed" in told
    assert "hint: " in told
    assert "Traceback" not in told


def test_mitmweb_runs(workshop: Workshop, images: Images) -> None:
    pod = workshop.pod(images.client)
    command = ["--no-web-open-browser", "--web-host", "127.0.0.1", "--web-port", "8082", "--listen-host", "127.0.0.1"]
    container = workshop.run(
        images.inspect,
        [*command, "--listen-port", "8083", "--set", "confdir=/var/lib/sigward/mitm", "--set", "web_password=for-this-test"],
        entrypoint="mitmweb",
        network_mode=pod.network_mode,
    )
    wait_output(container, "Web server listening at")
    url, key = "http://127.0.0.1:8082/state", ["--header", "Authorization: Bearer for-this-test"]
    status, told = workshop.finish(images.client, [*CURL, *key, url], network_mode=pod.network_mode, user="65531")
    assert (status, json.loads(told)["servers"] != {}) == (0, True), told
    status, told = workshop.finish(images.client, [*CURL, url], network_mode=pod.network_mode, user="65531")
    assert status == 22, "nobody gets in without the password"


def test_the_bill_of_materials_names_all_that_is_installed(workshop: Workshop, image: str) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = workshop.finish(image, ["/opt/sigward/sbom.cdx.json"], entrypoint="cat")[1]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    purls = {component.get("purl", "").partition("?")[0] for component in json.loads(text)["components"]}
    debian = workshop.finish(image, ["--show", "--showformat", "${Package}@${Version}\\n"], entrypoint="dpkg-query")[1].split()
    installed = json.loads(
        python(workshop, image, "import importlib.metadata as m, json; print(json.dumps([[d.name, d.version] for d in m.distributions()]))")
    )
    assert {entry.replace("+", "%2B").replace(":", "%3A") for entry in debian} <= {purl.removeprefix("pkg:deb/debian/") for purl in purls}
    assert {f"pkg:pypi/{name.lower().replace('_', '-')}@{version}" for name, version in installed} <= purls
    # cryptography's wheels have crates in them, too; ours are Cargo.lock's, in the versions that it says.
    locked = {entry["name"]: entry["version"] for entry in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    ours = ("hmac", "hyper", "rustls", "sigward-engine", "tokio")
    assert {f"pkg:cargo/{name}@{locked[name]}" for name in ours} <= purls


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_dockerfile_compiles_the_module_itself(engine: DockerClient, workshop: Workshop, base_image: str) -> None:
    try:
        builder = base.with_rust(engine)
    except base.BaseError as error:
        pytest.skip(str(error))
    image = build(DOCKERFILE, ROOT, "sigward", "sigward-test/compiled", BASE=base_image, BUILDER=builder)
    status, told = workshop.finish(image, ["--version"])
    assert (status, told) == (0, f"sigward {__version__}\n")
    container = workshop.run(image, environment={"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}, healthcheck=OFTEN)
    wait_health(container)
