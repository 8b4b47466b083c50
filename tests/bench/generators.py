"""What the native front and its rivals are loaded with: wrk, h2load, curl, and two small programs of ours in C.

Each returns a function that takes a proxy, loads it for one turn, and tells what came of it. An answer that is not 200, or an error of a
socket, raises `LoadError`: a measurement with errors in it measures something else.
"""

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sigward.demo.child import clean_environment
from tests.bench.bench_proxy import BODY, HEADERS
from tests.bench.harness import DYNAMODB, GLACIER, S3, Proxy, need, pinned
from tests.bench.ratios import Sample

Turn = Callable[[Proxy], Sample]

HERE = Path(__file__).parent
MIB = 1 << 20


class LoadError(Exception):
    """The generator, or an answer, was not as it should be. The message has the generator's output."""


@dataclass
class Generators:
    """`directory`: theirs. `seconds`: length of a turn. `cpus`: where they run, see `harness.pinned`."""

    directory: Path
    seconds: int
    cpus: str | None
    through: Path = field(init=False)
    paced_program: Path = field(init=False)

    def __post_init__(self) -> None:
        compiler = need("cc", "build-essential")
        self.through = self.directory / "through.so"
        self.paced_program = self.directory / "paced"
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", self.through, HERE / "through.c", "-ldl"], check=True)
        subprocess.run([compiler, "-O2", "-o", self.paced_program, HERE / "paced.c", "-lm"], check=True)
        (self.directory / "body").write_bytes(BODY)
        head = "".join(f"{name}: {value}\r\n" for name, value in (HEADERS | {"host": DYNAMODB, "content-length": str(len(BODY))}).items())
        (self.directory / "request").write_bytes(f"POST / HTTP/1.1\r\n{head}\r\n".encode() + BODY)

    def wrk(self, connections: int, *, to: str = "dynamodb", close: bool = False, unsaid: bool = False, seconds: int | None = None) -> Turn:
        """1 KiB POSTs over HTTP/1.1, as fast as they are answered.

        `to`: a listener; "tls" and "forward" take TLS, the latter inside a CONNECT. `close`: every request with a connection of its own,
        and with a full TLS handshake. `unsaid`: the proxy ends it without `Connection: close` in the answer, which wrk counts as an error.
        """
        script = self._script(close)

        def run(proxy: Proxy) -> Sample:
            scheme = "http" if to in ("dynamodb", "s3", "glacier") else "https"
            length = seconds or self.seconds
            command = ["-t1", f"-c{connections}", f"-d{length}s", "--timeout", "10s", "-s", str(script)]
            return self._wrk([*command, f"{scheme}://{proxy.addresses[to]}/"], proxy, self._through(proxy, to), unsaid)

        return run

    def wrk_paths(self, paths: list[str], connections: int) -> Turn:
        """GETs from S3, one path after the other."""
        script = self.directory / f"paths-{len(paths)}.lua"
        targets = ", ".join(f'"{path}"' for path in paths)
        script.write_text(
            f"local paths, at, made = {{{targets}}}, 0, {{}}\n"
            f'wrk.headers["Host"] = "{S3}"\n'
            'function init() for i, path in ipairs(paths) do made[i] = wrk.format("GET", path) end end\n'
            "function request() at = at % #made + 1; return made[at] end\n"
        )

        def run(proxy: Proxy) -> Sample:
            command = ["-t1", f"-c{connections}", f"-d{self.seconds}s", "--timeout", "10s", "-s", str(script)]
            return self._wrk([*command, f"http://{proxy.addresses['s3']}/"], proxy, {})

        return run

    def http2(self, connections: int, streams: int, *, to: str = "tls") -> Turn:
        """1 KiB POSTs over HTTP/2 and TLS."""

        def run(proxy: Proxy) -> Sample:
            headers = [argument for name, value in HEADERS.items() for argument in ("-H", f"{name}: {value}")]
            command = [need("h2load", "nghttp2-client"), f"-c{connections}", f"-m{streams}", f"-D{self.seconds}", "--warm-up-time=0"]
            command += ["-d", str(self.directory / "body"), *headers, f"--connect-to={proxy.addresses[to]}", f"https://{DYNAMODB}/"]
            before = proxy.cpu_seconds()
            told = self._output(command, self._through(proxy, to))
            cpu = proxy.cpu_seconds() - before
            found = re.search(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", told)
            if found is None or "Application protocol: h2" not in told or not int(found[1]):
                raise LoadError(told)
            return Sample(int(found[1]), self.seconds, cpu)

        return run

    def paced(self, connections: int, rate: float = 0) -> Turn:
        """The same POSTs, due at random times with `rate` a second in the mean; 0: as fast as they are answered. Tells latencies."""

        def run(proxy: Proxy) -> Sample:
            port = proxy.addresses["dynamodb"].rpartition(":")[2]
            command = [str(self.paced_program), port, str(self.directory / "request"), str(connections), f"{rate:.0f}", str(self.seconds)]
            before = proxy.cpu_seconds()
            told = json.loads(self._output(command, {}))
            cpu = proxy.cpu_seconds() - before
            if told["errors"] or told["unanswered"]:
                raise LoadError(str(told))
            return Sample(told["requests"], told["seconds"], cpu, told["p50"], told["p99"])

        return run

    def transfers(self, number: int, file: Path, *, host: str = S3, upload: bool) -> Turn:
        """So many of `file`, one after the other on one connection, with curl: GET /files/NAME, or PUT (to Glacier: POST) /held/key."""
        service = {S3: "s3", GLACIER: "glacier"}[host]
        method = "POST" if host == GLACIER else "PUT"

        def run(proxy: Proxy) -> Sample:
            base = f"http://{proxy.addresses[service]}"
            common = f'silent\nshow-error\nfail\nheader = "host: {host}"\noutput = /dev/null\n'
            common += 'write-out = "%{http_code} %{size_upload} %{size_download} %{time_total}\\n"\n'
            if upload:
                common += f'request = {method}\nheader = "content-type: application/octet-stream"\nheader = "expect:"\n'
                common += f'upload-file = "{file}"\nurl = "{base}/held/key"\n'
            else:
                common += f'url = "{base}/files/{file.name}"\n'
            config = self.directory / f"curl-{service}-{'up' if upload else 'down'}"
            config.write_text("next\n".join([common] * number))
            before = proxy.cpu_seconds()
            told = self._output([need("curl", "curl"), "-K", str(config)], {})
            cpu = proxy.cpu_seconds() - before
            lines = [line.split() for line in told.splitlines()]
            size = str(file.stat().st_size)
            if len(lines) != number or any(line[0] != "200" or line[1 if upload else 2] != size for line in lines):
                raise LoadError(told)
            return Sample(number * file.stat().st_size / MIB, sum(float(line[3]) for line in lines), cpu)

        return run

    def at_once(self, number: int, file: Path, *, upload: bool) -> Turn:
        """So many transfers of `file` at once, each on a connection of its own, from S3 or to it."""

        def run(proxy: Proxy) -> Sample:
            command = [need("h2load", "nghttp2-client"), "--h1", f"-c{number}", f"-n{number}", f"--connect-to={proxy.addresses['s3']}"]
            if upload:
                command += ["-d", str(file), "-H", ":method: PUT", "-H", "content-type: application/octet-stream"]
            command.append(f"http://{S3}/{'held/key' if upload else f'files/{file.name}'}")
            before = proxy.cpu_seconds()
            told = self._output(command, {})
            cpu = proxy.cpu_seconds() - before
            took = re.search(r"finished in ([\d.]+)(ms|s),", told)
            if took is None or f"status codes: {number} 2xx" not in told:
                raise LoadError(told)
            return Sample(number * file.stat().st_size / MIB, float(took[1]) / (1000 if took[2] == "ms" else 1), cpu)

        return run

    def _through(self, proxy: Proxy, to: str) -> dict[str, str]:
        """See through.c."""
        environment = {"LD_PRELOAD": str(self.through), "TLS_NAME": DYNAMODB}
        return environment | {"CONNECT_TARGET": proxy.target} if to == "forward" else environment

    def _script(self, close: bool) -> Path:
        script = self.directory / f"post{'-close' if close else ''}.lua"
        headers = HEADERS | {"Host": DYNAMODB} | ({"Connection": "close"} if close else {})
        lines = ['wrk.method = "POST"', f'wrk.body = io.open("{self.directory / "body"}", "rb"):read("*a")']
        script.write_text("\n".join(lines + [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]) + "\n")
        return script

    def _wrk(self, arguments: list[str], proxy: Proxy, environment: Mapping[str, str], unsaid: bool = False) -> Sample:
        before = proxy.cpu_seconds()
        told = self._output([need("wrk", "wrk"), *arguments], environment)
        cpu = proxy.cpu_seconds() - before
        found = re.search(r"(\d+) requests in ([\d.]+)(s|m),", told)
        wrong = re.search(r"Non-2xx or 3xx responses|Socket errors", told)
        if unsaid and found and (ended := re.search(r"Socket errors: connect 0, read (\d+), write 0, timeout 0", told)):
            wrong = None if int(ended[1]) <= int(found[1]) else wrong
        if found is None or not int(found[1]) or wrong:
            raise LoadError(told)
        return Sample(int(found[1]), float(found[2]) * (60 if found[3] == "m" else 1), cpu)

    def _output(self, command: list[str], environment: Mapping[str, str]) -> str:
        done = subprocess.run(
            pinned(self.cpus, command),
            capture_output=True,
            text=True,
            timeout=self.seconds + 300,
            env=clean_environment() | dict(environment),
        )
        if done.returncode:
            raise LoadError(f"{Path(command[0]).name} ended with status {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout
