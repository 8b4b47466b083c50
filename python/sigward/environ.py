"""The variables that make a program send its AWS calls through sigward, and keep the real keys away from it."""

import ipaddress
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sigward import _core
from sigward.clients import IssuedKey
from sigward.errors import UsageError
from sigward.trust import TRUSTSTORE_PASSWORD, Trust

DUMMY_KEY = "SIGWARDDUMMYKEYID000"
DUMMY_SECRET = "sigward-signs-this-is-no-secret"  # noqa: S105 - says so itself
DUMMY = IssuedKey(DUMMY_KEY, DUMMY_SECRET)
"""For programs that must sign with something."""

NO_PROXY = "localhost,127.0.0.1,127.0.0.0/8,::1,169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::254,fd00:ec2::23"
"""What must not go through a proxy: the program's own host, and the metadata services. Few programs read a network (Go, requests, curl
from 7.86 on). No brackets: httpx raises InvalidURL at `[::1]`, in whatever it is used for."""

REMOVED = (
    "AWS_SESSION_TOKEN", "AWS_CREDENTIAL_EXPIRATION", "AWS_SECURITY_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE",
    "AWS_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_BEARER_TOKEN_BEDROCK", "ALL_PROXY", "all_proxy",
)  # fmt: skip
"""Where real keys could still reach the program, or the proxy be passed by. AWS_ACCESS_KEY and AWS_SECRET_KEY: other names, which SDKs
for Java and Ruby read."""

REMOVED_PREFIX = "AWS_BEARER_TOKEN_"
"""With a service's name behind it: a key for that service."""


BUNDLES = (
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "PIP_CERT", "CARGO_HTTP_CAINFO", "GIT_SSL_CAINFO",
    "PERL_LWP_SSL_CA_FILE",
)  # fmt: skip
"""They take one file for all: the system's roots and the CA."""

ADDED = ("NODE_EXTRA_CA_CERTS", "DENO_CERT")
"""They add a file to roots of their own: the CA alone."""

PHP = "PHP_INI_SCAN_DIR"

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
        """What to set, in the order it is shown. `own`: the program's environment: to its NO_PROXY, JAVA_TOOL_OPTIONS and
        PHP_INI_SCAN_DIR is added, and a wgetrc of the person's own is left alone."""
        own = own or {}
        return {
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), self.proxy),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(dict.fromkeys([*NO_PROXY.split(","), *own_no_proxy(own)]))),
            "NODE_USE_ENV_PROXY": "1",
            "PERL_LWP_ENV_PROXY": "1",
            **dict.fromkeys(BUNDLES, str(self.trust.bundle)),
            **dict.fromkeys(ADDED, str(self.trust.certificate)),
            PHP: self.php_directories(own.get(PHP, "")),
            **self.wget_files(own),
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
            "http.nonProxyHosts": "|".join(
                ["127.*", *(f"[{host}]" if ":" in host else host for host in NO_PROXY.split(",") if "/" not in host)]
            ),
        }
        ours = " ".join(java_quoted(f"-D{name}={value}") for name, value in properties.items())
        kept = own.replace(ours, "").strip()
        return f"{kept} {ours}" if kept else ours

    def php_directories(self, own: str = "") -> str:
        """Where PHP looks for `*.ini`. An empty entry is the directory that it was built with ("The configuration file", PHP's manual)."""
        ours = str(self.trust.php_ini.parent)
        return own if ours in own.split(":") else f"{own}:{ours}"

    def wget_files(self, own: Mapping[str, str]) -> dict[str, str]:
        """Only where the person has none: such a variable comes in the place of the file in the home directory. The system's file is read
        all the same ("Wgetrc Location", wget's manual)."""
        ours = {"WGETRC": str(self.trust.wgetrc), "WGET2RC": str(self.trust.wget2rc)}
        home = Path(own.get("HOME") or os.devnull)
        settings = Path(own.get("XDG_CONFIG_HOME") or home / ".config")
        places = {"WGETRC": (home / ".wgetrc",), "WGET2RC": (home / ".wget2rc", settings / "wget" / "wget2rc")}
        return {
            variable: path
            for variable, path in ours.items()
            # A home that this user may not look into is nobody's reason to stop: Path.exists would raise.
            if own.get(variable, path) == path and not any(os.path.exists(place) for place in places[variable])  # noqa: PTH110
        }

    def applied_to(self, environment: dict[str, str]) -> dict[str, str]:
        """An environment for the program: these set, those that could carry keys removed."""
        taken = removed(environment)
        kept = {name: value for name, value in environment.items() if name not in taken}
        return kept | self.variables(environment)

    def script(self, shell: str, own: Mapping[str, str] | None = None) -> str:
        """For `eval "$(sigward env)"`, `sigward env --shell fish | source`, `docker run --env-file`, a Kubernetes container's `env`."""
        # A name that is none of a variable's would be read as more than that: `AWS_BEARER_TOKEN_;id`. No shell hands such a one on.
        variables, taken = self.variables(own), [name for name in removed(own or {}) if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)]
        for name, value in variables.items():
            check_decoded(name, value)
        if shell == "fish":
            lines = [f"set -gx {name} {fish_quoted(value)}" for name, value in variables.items()]
            lines += [f"set -e {name}" for name in taken]
        elif shell == "docker":
            for name, value in variables.items():
                if re.search(r"[\r\n]", value):
                    raise UsageError(
                        f"{name}: Docker's files of variables hold no line breaks.", hint=f"Take the line break out of {name}."
                    )
            lines = [f"{name}={value}" for name, value in variables.items()]
        elif shell == "kubernetes":
            # A JSON string is one of YAML's; $(NAME) would be expanded, and $$ is one $.
            lines = [f"- name: {name}\n  value: {json.dumps(value.replace('$', '$$'))}" for name, value in variables.items()]
        elif shell == "sh":
            lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
            lines += [f"unset {name}" for name in taken]
        else:
            raise UsageError(f"--shell: {shell!r} is not known.", hint="sh (also bash and zsh), fish, docker or kubernetes.")
        return "\n".join(lines) + "\n"


def removed(own: Mapping[str, str]) -> list[str]:
    """Names of variables that are to be removed. `own`: the program's environment."""
    return list(dict.fromkeys([*REMOVED, *sorted(name for name in own if name.startswith(REMOVED_PREFIX))]))


def check_decoded(name: str, value: str) -> None:
    """Raises `UsageError` if bytes in it are not UTF-8: neither the engine nor most programs could take it."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{name}: it holds bytes that are not UTF-8.", hint=f"Give {name} as UTF-8.") from error


def fish_quoted(value: str) -> str:
    """In single quotes fish knows two escapes, of the backslash and of the quote ("Quotes", fish's manual)."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def own_no_proxy(own: Mapping[str, str]) -> list[str]:
    """The person's hosts that are reached without a proxy. Programs read one of the two spellings or the other. Raises `UsageError`."""
    for name in ("no_proxy", "NO_PROXY"):
        check_decoded(name, own.get(name, ""))
    return list(dict.fromkeys(host for name in ("no_proxy", "NO_PROXY") for host in re.split(r"[\s,]+", own.get(name, "")) if host))


def passed_by(own: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Entries of the person's NO_PROXY that keep calls away from sigward. `names`: `Settings.routed_names`."""
    signed = [*_core.aws_domains(), *(name for name in names if "*" not in name)]
    return [entry for entry in own_no_proxy(own) if entry not in NO_PROXY.split(",") and covers(entry, signed)]


def covers(entry: str, signed: Iterable[str]) -> bool:
    """True if an entry of NO_PROXY covers a host that is signed for. `signed`: domains, with all below them, and addresses."""
    entry = re.sub(r":\d+$", "", entry.lower()) if entry.count(":") == 1 else entry.lower()
    entry = entry.removeprefix("*").removeprefix(".").removeprefix("[").removesuffix("]")
    if not entry:
        return True
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        # Not all below AWS's domains is signed for: load balancers are not.
        aws = (_core.recognise(host) for host in (entry, f"x.{entry}", f"sts.{entry}", f"x.us-east-1.{entry}"))
        return any(f".{name}".endswith(f".{entry}") for name in signed) or any(found is not None and found.signed for found in aws)
    return any(address in network for address in map(address_of, signed) if address is not None)


def address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """A name that is an address, as one."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def java_quoted(option: str) -> str:
    """As Java's machine splits options: at blanks outside of quotes of either kind; it knows no backslash."""
    if not re.search(r"[\s'\"]", option):
        return option
    return "".join(f'"{part}"' if part[0] == "'" else f"'{part}'" for part in re.findall(r"'+|[^']+", option))


def without_own_proxy(environment: dict[str, str]) -> dict[str, str]:
    """What sigward itself is to run with: a proxy on this host may be sigward, and its own calls for keys must not go round in a circle."""
    kept = dict(environment)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        try:
            host = urlsplit(kept.get(name, "")).hostname or ""
        except ValueError:
            # Whoever uses it is to say what is wrong with it.
            continue
        if host == "localhost" or host.startswith("127.") or host == "::1":
            del kept[name]
    # botocore compares IPv6 addresses with their brackets.
    ours = [entry for host in NO_PROXY.split(",") for entry in ([host, f"[{host}]"] if ":" in host else [host])]
    return kept | dict.fromkeys(("NO_PROXY", "no_proxy"), ",".join(dict.fromkeys([*own_no_proxy(kept), *ours])))


def leave_own_proxy() -> None:
    """Makes `without_own_proxy` this process's own environment: botocore reads proxies from there."""
    kept = without_own_proxy(dict(os.environ))
    os.environ.clear()
    os.environ.update(kept)
