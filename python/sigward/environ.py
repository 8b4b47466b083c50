"""The variables that make a program send its AWS calls through sigward, and keep the real keys away from it."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sigward.clients import IssuedKey
from sigward.errors import UsageError

DUMMY_KEY = "SIGWARDDUMMYKEYID000"
DUMMY_SECRET = "sigward-signs-this-is-no-secret"  # noqa: S105 - says so itself
DUMMY = IssuedKey(DUMMY_KEY, DUMMY_SECRET)
"""For programs that must sign with something."""

NO_PROXY = "localhost,127.0.0.1,::1,169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::254,fd00:ec2::23"
"""What must not go through a proxy: the program's own host, and the metadata services."""

REMOVED = (
    "AWS_SESSION_TOKEN", "AWS_CREDENTIAL_EXPIRATION", "AWS_SECURITY_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "ALL_PROXY", "all_proxy",
)  # fmt: skip
"""Where real keys could still reach the program, or the proxy be passed by."""


@dataclass(frozen=True)
class ClientEnvironment:
    """`proxy`: "http://127.0.0.1:8080". `bundle`: system roots and sigward's CA. `certificate`: the CA alone. `key`: the pair that the
    program signs with for sigward."""

    proxy: str
    bundle: Path
    certificate: Path
    region: str
    key: IssuedKey = DUMMY

    def variables(self) -> dict[str, str]:
        """What to set, in the order it is shown."""
        bundle = str(self.bundle)
        return {
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), self.proxy),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), NO_PROXY),
            **dict.fromkeys(
                ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT"), bundle
            ),
            "NODE_EXTRA_CA_CERTS": str(self.certificate),
            "AWS_ACCESS_KEY_ID": self.key.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.key.secret_access_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }

    def applied_to(self, environment: dict[str, str]) -> dict[str, str]:
        """An environment for the program: these set, those that could carry keys removed."""
        kept = {name: value for name, value in environment.items() if name not in REMOVED}
        made = kept | self.variables()
        for name in ("NO_PROXY", "no_proxy"):
            own = [host for host in environment.get(name, "").split(",") if host and host not in NO_PROXY.split(",")]
            made[name] = ",".join([NO_PROXY, *own])
        return made

    def script(self, shell: str) -> str:
        """For `eval "$(sigward env)"`, `sigward env --shell fish | source`, `docker run --env-file`."""
        variables = self.variables()
        if shell == "fish":
            lines = [f"set -gx {name} {shlex.quote(value)}" for name, value in variables.items()]
            lines += [f"set -e {name}" for name in REMOVED]
        elif shell == "docker":
            lines = [f"{name}={value}" for name, value in variables.items()]
        elif shell == "sh":
            lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
            lines += [f"unset {name}" for name in REMOVED]
        else:
            raise UsageError(f"--shell: {shell!r} is not known.", hint="sh (also bash and zsh), fish or docker.")
        return "\n".join(lines) + "\n"


def without_own_proxy(environment: dict[str, str]) -> dict[str, str]:
    """What sigward itself is to run with: a proxy on this host may be sigward, and its own calls for keys must not go round in a circle."""
    kept = dict(environment)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        host = urlsplit(kept.get(name, "")).hostname or ""
        if host == "localhost" or host.startswith("127.") or host == "::1":
            del kept[name]
    already = kept.get("NO_PROXY") or kept.get("no_proxy")
    for name in ("NO_PROXY", "no_proxy"):
        kept[name] = f"{already},{NO_PROXY}" if already else NO_PROXY
    return kept


def leave_own_proxy() -> None:
    """Makes `without_own_proxy` this process's own environment: botocore reads proxies from there."""
    kept = without_own_proxy(dict(os.environ))
    os.environ.clear()
    os.environ.update(kept)
