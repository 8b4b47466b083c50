"""What transparent mode adds to a request: through the packet filter's REDIRECT, against a listener that the client names itself.

Each has a network namespace of its own, with an upstream and a sigward in it; in one of them `sigward-init` has set its rules, so that the
cost of tracking connections counts, too. 1 KiB POSTs from wrk, signed, to a TLS upstream that answers at once. Rounds are interleaved, and
the quietest turn of each counts: of a few microseconds, what else runs on the machine hides the rest, and it only ever adds. Needs root,
nginx, wrk and a C compiler; run it with `python -m tests.bench.bench_transparent`.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme

from sigward.demo.child import Child, clean_environment
from tests.bench.bench_proxy import BODY, HEADERS
from tests.bench.harness import CREDENTIALS, DYNAMODB, NGINX, ROOT, Table, certificate, finish, need, nginx_command, parser
from tests.bench.ratios import goal
from tests.namespace import NOBODY, Namespace, NamespaceError

AWS = "203.0.113.10"
UPSTREAM, TRANSPARENT, REVERSE, FORWARD = 8443, 15001, 8081, 8080
MOST = 1.05
UNITS = {"us": 1, "ms": 1000, "s": 1_000_000}


@dataclass(frozen=True, eq=False)
class World:
    """A namespace with an upstream and sigward. `plain`, `tls`: where its client goes. `through`: CONNECT comes first, see through.c."""

    namespace: Namespace
    directory: Path
    plain: str
    tls: str
    through: dict[str, str]

    def turn(self, seconds: int, *, tls: bool, close: bool) -> float:
        """The median latency of one connection at a time, in µs. `close`: each request on one of its own."""
        script = self.directory / f"post-{close}.lua"
        headers = HEADERS | {"Host": DYNAMODB} | ({"Connection": "close"} if close else {})
        lines = ['wrk.method = "POST"', f'wrk.body = io.open("{self.directory / "body"}", "rb"):read("*a")']
        script.write_text("\n".join(lines + [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]) + "\n")
        environment = [f"{name}={value}" for name, value in self.through.items()] if tls else []
        command = ["env", *environment, need("wrk", "wrk"), "-t1", "-c1", f"-d{seconds}s", "--latency", "-s", str(script)]
        told = self.namespace.run(*command, self.tls if tls else self.plain, user=NOBODY)
        requests, half = re.search(r"(\d+) requests in", told), re.search(r"50%\s+([\d.]+)(us|ms|s)\b", told)
        if requests is None or half is None or not int(requests[1]) or "Non-2xx" in told or "Socket errors" in told:
            sys.exit(f"wrk: {told}")
        return float(half[1]) * UNITS[half[2]]


@contextmanager
def world(*, redirected: bool) -> Iterator[World]:
    """`redirected`: the client names AWS's address, and the rules lead it to sigward; else it names sigward's listener."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="sigward-bench-")))
        directory.chmod(0o755)
        namespace = Namespace(directory, (f"{AWS}/32",))
        stack.callback(namespace.close)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        certificate(directory, authority, DYNAMODB)
        (directory / "body").write_bytes(BODY)
        (directory / "nginx.conf").write_text(NGINX.format(directory=directory, port=UPSTREAM))
        (directory / "sigward.toml").write_text(
            f'front = "native"\nlisten = "127.0.0.1:{FORWARD}"\ntransparent = "localhost:{TRANSPARENT}"\n'
            f'admin = "off"\nca_dir = "{directory}/ca"\n'
            f'reverse = ["127.0.0.1:{REVERSE}=https://{DYNAMODB}"]\n[tls]\nca_files = ["{directory}/ca.pem"]\nsystem_roots = false\n'
            f'[[route]]\nhost = "*.amazonaws.com"\nconnect = "127.0.0.1:{UPSTREAM}"\n'
        )
        nginx = stack.enter_context(Child(namespace.command(*nginx_command(directory)), clean_environment(), directory))
        nginx.wait_for("start worker process ")
        serve = [sys.executable, "-m", "sigward", "serve", "--config", str(directory / "sigward.toml")]
        sigward = stack.enter_context(Child(namespace.command(*serve), clean_environment() | CREDENTIALS, directory))
        sigward.wait_for("listening ")
        if redirected:
            # sigward is root here, and wrk somebody else.
            script = ROOT / "deploy" / "kubernetes" / "init" / "sigward-init"
            namespace.run("env", "PROXY_UID=0", f"REDIRECT_TO={TRANSPARENT}", "sh", str(script))
        library = directory / "through.so"
        source = Path(__file__).with_name("through.c")
        subprocess.run([need("cc", "build-essential"), "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        through = {"LD_PRELOAD": str(library), "TLS_NAME": DYNAMODB}
        if redirected:
            yield World(namespace, directory, f"http://{AWS}/", f"https://{AWS}/", through)
        else:
            through["CONNECT_TARGET"] = f"{DYNAMODB}:443"
            yield World(namespace, directory, f"http://127.0.0.1:{REVERSE}/", f"https://127.0.0.1:{FORWARD}/", through)


KINDS = {
    "plain HTTP; named: endpoint URL": (False, False, MOST),
    "TLS; named: HTTPS_PROXY": (True, False, MOST),
    "plain HTTP, a new connection for each": (False, True, None),
}


def main() -> None:
    """Prints the table."""
    flags = parser(__doc__ or "")
    flags.add_argument("--rounds", type=int, default=15)
    flags.add_argument("--seconds", type=int, default=1, help="of a turn")
    arguments = flags.parse_args()
    title = "Transparent mode against a listener that the client names: 1 connection, POST 1 KiB, median latency"
    table = Table(title, ("", "goal", "named, µs", "transparent, µs", "ratio", ""), readme=False)
    try:
        with world(redirected=False) as named, world(redirected=True) as transparent:
            for kind, (tls, close, most) in KINDS.items():
                turns: dict[World, list[float]] = {named: [], transparent: []}
                for number in range(arguments.rounds):
                    for one in list(turns)[:: 1 if number % 2 else -1]:
                        turns[one].append(one.turn(arguments.seconds, tls=tls, close=close))
                least = [min(found) for found in turns.values()]
                found = least[1] / least[0]
                row = [kind, f"≤ {MOST}" if most else "", *(f"{each:.0f}" for each in least)]
                table.rows.append([*row, f"**{found:.3f}**", goal(found, most=most)])
    except (NamespaceError, subprocess.SubprocessError) as error:
        sys.exit(f"bench_transparent: {error}")
    finish([table], arguments)


if __name__ == "__main__":
    main()
