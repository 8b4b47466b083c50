"""The variables that make a program send its AWS calls through sigward, and keep the real keys away from it."""

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from sigward.clients import IssuedKey
from sigward.errors import UsageError
from sigward.trust import TRUSTSTORE_PASSWORD, Trust

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


BUNDLES = (
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "PIP_CERT", "CARGO_HTTP_CAINFO", "GIT_SSL_CAINFO",
)  # fmt: skip
"""They take one file for all: the system's roots and the CA."""

ADDED = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
"""They add a file to roots of their own: the CA alone."""

JAVA = "JAVA_TOOL_OPTIONS"
"""What every Java machine reads, and says so on stderr."""


@dataclass(frozen=True)
class ClientEnvironment:
    """`proxy`: "http://127.0.0.1:8080". `trust`: the files as the program sees them. `key`: the pair that the program signs with for
    sigward."""

    proxy: str
    trust: Trust
    region: str
    key: IssuedKey = DUMMY

    def variables(self, own: Mapping[str, str] | None = None) -> dict[str, str]:
        """What to set, in the order it is shown. `own`: the program's environment, whose NO_PROXY and JAVA_TOOL_OPTIONS are added to."""
        own = own or {}
        return {
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), self.proxy),
            **{name: no_proxy(own.get(name, "")) for name in ("NO_PROXY", "no_proxy")},
            "NODE_USE_ENV_PROXY": "1",
            **dict.fromkeys(BUNDLES, str(self.trust.bundle)),
            **dict.fromkeys(ADDED, str(self.trust.certificate)),
            JAVA: self.java_options(own.get(JAVA, "")),
            "AWS_ACCESS_KEY_ID": self.key.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.key.secret_access_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }

    def java_options(self, own: str = "") -> str:
        """Java reads no proxy variable and no PEM file. `own`: the options that are there: of two that contradict, the last counts."""
        proxy = urlsplit(self.proxy)
        properties = {
            "javax.net.ssl.trustStore": str(self.trust.truststore),
            "javax.net.ssl.trustStoreType": "PKCS12",
            "javax.net.ssl.trustStorePassword": TRUSTSTORE_PASSWORD,
            "https.proxyHost": proxy.hostname or "",
            "https.proxyPort": str(proxy.port or 80),
            "http.proxyHost": proxy.hostname or "",
            "http.proxyPort": str(proxy.port or 80),
            "http.nonProxyHosts": "|".join(f"[{host}]" if ":" in host else host for host in ["127.*", *NO_PROXY.split(",")]),
        }
        ours = " ".join(java_quoted(f"-D{name}={value}") for name, value in properties.items())
        kept = own.replace(ours, "").strip()
        return f"{kept} {ours}" if kept else ours

    def applied_to(self, environment: dict[str, str]) -> dict[str, str]:
        """An environment for the program: these set, those that could carry keys removed."""
        kept = {name: value for name, value in environment.items() if name not in REMOVED}
        return kept | self.variables(environment)

    def script(self, shell: str, own: Mapping[str, str] | None = None) -> str:
        """For `eval "$(sigward env)"`, `sigward env --shell fish | source`, `docker run --env-file`, a Kubernetes container's `env`."""
        variables = self.variables(own)
        if shell == "fish":
            lines = [f"set -gx {name} {shlex.quote(value)}" for name, value in variables.items()]
            lines += [f"set -e {name}" for name in REMOVED]
        elif shell == "docker":
            lines = [f"{name}={value}" for name, value in variables.items()]
        elif shell == "kubernetes":
            # A JSON string is one of YAML's; $(NAME) would be expanded.
            lines = [f"- name: {name}\n  value: {json.dumps(value.replace('$(', '$$('))}" for name, value in variables.items()]
        elif shell == "sh":
            lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
            lines += [f"unset {name}" for name in REMOVED]
        else:
            raise UsageError(f"--shell: {shell!r} is not known.", hint="sh (also bash and zsh), fish, docker or kubernetes.")
        return "\n".join(lines) + "\n"


def no_proxy(own: str) -> str:
    """`own`: the program's hosts that are reached without a proxy."""
    ours = NO_PROXY.split(",")
    return ",".join([*ours, *(host for host in own.split(",") if host and host not in ours)])


def java_quoted(option: str) -> str:
    """As Java's machine splits options: at blanks outside of quotes of either kind; it knows no backslash."""
    if not re.search(r"[\s'\"]", option):
        return option
    return "".join(f'"{part}"' if part[0] == "'" else f"'{part}'" for part in re.findall(r"'+|[^']+", option))


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
