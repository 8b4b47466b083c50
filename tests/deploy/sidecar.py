"""A sigward in a pod, before the emulator: as its image has it, but for where AWS is."""

from pathlib import Path
from typing import Any

from docker.models.containers import Container

from sigward.demo.emulator import Emulator
from tests.deploy.engine import OFTEN, Pod, Workshop

AWS_PORT = 8443
"""Where the emulator is, in the pod."""

STS = "http://127.0.0.1:8081"
"""The endpoint URL of STS."""

PROXY = "http://127.0.0.1:8080"

AWS = f"""
[tls]
ca_files = ["/etc/sigward/aws.pem"]
system_roots = false

[[route]]
host = "*.amazonaws.com"
connect = "127.0.0.1:{AWS_PORT}"
"""
"""Settings that lead AWS's hosts to the emulator."""

REVERSE = """
[[reverse]]
listen = "127.0.0.1:8081"
upstream = "https://sts.us-east-1.amazonaws.com"
"""


def settings(emulator: Emulator, directory: Path, text: str) -> dict[str, dict[str, str]]:
    """A volume with a settings file and the emulator's CA, to be mounted at /etc/sigward."""
    place = directory / "etc"
    place.mkdir()
    (place / "sigward.toml").write_text(text)
    (place / "aws.pem").write_text(emulator.ca_file.read_text())
    # pytest's directories are their owner's alone; the container's user is another.
    place.chmod(0o755)
    return {str(place): {"bind": "/etc/sigward", "mode": "ro"}}


def environment(emulator: Emulator) -> dict[str, str]:
    """The emulator's keys, and where the settings are."""
    return emulator.credentials() | {"AWS_REGION": emulator.region, "SIGWARD_CONFIG": "/etc/sigward/sigward.toml"}


def start(workshop: Workshop, pod: Pod, image: str, emulator: Emulator, directory: Path, *, top: str = "", **how: Any) -> Container:
    """Starts it, restricted. `top`: keys of the settings file's first part. `how`: as `Workshop.run` takes it."""
    pod.lead("127.0.0.1", AWS_PORT, emulator.port)
    given = environment(emulator) | how.pop("environment", {})
    volumes = settings(emulator, directory, top + REVERSE + AWS)
    return workshop.run(image, network_mode=pod.network_mode, environment=given, volumes=volumes, healthcheck=OFTEN, **how)
