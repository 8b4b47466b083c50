"""`sigward imds`: EC2's instance metadata, for people. Version 2: a PUT for a token, then the token as a header."""

import json
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from sigward.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from sigward.cli.commands import Imds

TTL = 300
KEYS = "security-credentials/"


class NoRedirects(HTTPRedirectHandler):
    """The service has no business elsewhere: a redirect would take the token there."""

    def redirect_request(self, *_: object) -> None:
        """A redirect is an answer as it is."""


@dataclass
class Metadata:
    """One metadata service: a token serves all reads until it is refused. `endpoint`: without a slash at the end."""

    endpoint: str
    timeout: float = 2.0
    _token: str | None = field(default=None, repr=False)

    def get(self, path: str) -> str:
        """The text at a path such as `/latest/meta-data/placement/region`. Raises `UnavailableError`, `UsageError`."""
        for _ in range(2):
            if self._token is None:
                self._token = self._ask("PUT", "/latest/api/token", {"x-aws-ec2-metadata-token-ttl-seconds": str(TTL)})
            try:
                return self._ask("GET", path, {"x-aws-ec2-metadata-token": self._token})
            except HTTPError as error:
                if error.code == 404:
                    raise UsageError(f"imds: there is nothing at {path}.", hint="sigward imds get / lists what is there.") from error
                if error.code != 401:
                    raise UnavailableError(
                        f"imds: {path}: status {error.code}.", hint="Is metadata switched on for this instance?"
                    ) from error
                self._token = None
        raise UnavailableError("imds: the token was refused twice.", hint="Is the endpoint an instance metadata service?")

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = Request(self.endpoint + path, method=method, headers=headers)  # noqa: S310 - the endpoint is checked
        try:
            with build_opener(ProxyHandler({}), NoRedirects()).open(request, timeout=self.timeout) as answer:
                return str(answer.read(1 << 20).decode())
        except HTTPError as error:
            if method == "GET":
                raise
            raise UnavailableError(f"imds: no token: status {error.code}.", hint="Is metadata switched on for this instance?") from error
        except (URLError, OSError, UnicodeDecodeError) as error:
            raise UnavailableError(
                f"imds: {self.endpoint} does not answer: {error}.",
                hint="Is this an EC2 instance? In a container the hop limit must be 2 or more.",
            ) from error


def imds(command: "Imds") -> int:
    """Returns the exit status."""
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise UsageError("imds: AWS_EC2_METADATA_DISABLED is true.", hint="Unset it to read instance metadata.")
    metadata = service(command)
    if command.what == "role":
        sys.stdout.write(json.dumps(role(metadata), indent=2) + "\n")
        return 0
    path = command.path or "/"
    if not path.startswith("/"):
        path = f"/latest/meta-data/{path}"
    if KEYS in path and path.rpartition(KEYS)[2]:
        raise UsageError(f"imds: {path}: sigward prints no keys.", hint="`sigward imds role` tells the role and when its keys expire.")
    text = metadata.get(path)
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    return 0


def service(command: "Imds") -> Metadata:
    """Where it is, and how long it may take: as the environment and the profile say. Raises `UsageError`."""
    from botocore.utils import METADATA_BASE_URL, METADATA_BASE_URL_IPv6, resolve_imds_endpoint_mode

    from sigward.credentials.chain import Chain, as_hint, mend_for, told

    session = Chain(command.profile, "us-east-1").session()
    try:
        usual = METADATA_BASE_URL_IPv6 if resolve_imds_endpoint_mode(session) == "ipv6" else METADATA_BASE_URL
        endpoint = str(session.get_config_variable("ec2_metadata_service_endpoint") or usual).rstrip("/")
        timeout = float(session.get_config_variable("metadata_service_timeout"))
    except Exception as error:  # botocore's kinds
        raise UsageError(f"imds: {told(error, None)}.", hint=as_hint(mend_for(error, profile=command.profile))) from error
    if not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"AWS_EC2_METADATA_SERVICE_ENDPOINT: {endpoint!r} is not a URL.", hint="E.g. http://169.254.169.254, or unset it.")
    return Metadata(endpoint, timeout)


def role(metadata: Metadata) -> dict[str, str]:
    """Name, region and expiry of the instance's role; its policy is not in the metadata."""
    base = f"/latest/meta-data/iam/{KEYS}"
    name = metadata.get(base).split()[0]
    told = json.loads(metadata.get(base + name))
    found = {"role": name, "state": str(told.get("Code", "")), "expires": str(told.get("Expiration", ""))}
    try:
        found["region"] = metadata.get("/latest/meta-data/placement/region")
    except UsageError:
        found["region"] = ""
    return found
