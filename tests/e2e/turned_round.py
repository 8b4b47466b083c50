"""Runs in a network namespace of its own: a transparent listener, iptables that turn one user's connections round, and curl as that user.

`python -m tests.e2e.turned_round DIRECTORY`; ends with status 0 if all is as it should be. Called by test_transparent.py.
"""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

from sigward import _core
from sigward.ca import CertificateAuthority
from sigward.front import FrontOptions, NativeFront
from tests.support import KEY, SECRET, Upstream, assert_signed, connected, engine_settings

ELSEWHERE = "10.9.9.8"
"""Nobody's address outside; here the loopback has it."""

AWS, OTHER = "sqs.us-east-1.amazonaws.com", "other.test"
USER = "65534"


async def run(*command: str) -> str:
    """Its output. It must succeed."""
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, error = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, f"{command}: {out.decode()} {error.decode()}"
    return out.decode()


async def curl(url: str, port: int, *more: str) -> str:
    """As the user whose connections are turned round; the host is at ELSEWHERE."""
    host = url.split("/")[2]
    user = ("setpriv", f"--reuid={USER}", "--clear-groups")
    return await run(*user, "curl", "-sS", "--noproxy", "*", "--max-time", "20", "--resolve", f"{host}:{port}:{ELSEWHERE}", *more, url)


async def main(directory: Path) -> None:
    """All cases."""
    await run("ip", "link", "set", "lo", "up")
    await run("ip", "address", "add", f"{ELSEWHERE}/32", "dev", "lo")
    authority = CertificateAuthority(directory / "ca")
    authority.ensure()
    async with Upstream() as aws, Upstream(hosts=(OTHER,)) as other:
        engine = _core.Engine(engine_settings(aws.port, aws.write_ca(directory / "upstream.pem")))
        engine.set_credentials("default", KEY, SECRET, None, None, "test")
        options = FrontOptions(None, (), authority.directory, 1 << 20, 1.0, transparent="127.0.0.1:0")
        front = NativeFront(engine, options, lambda _: None)
        await front.start()
        listener = front.addresses["transparent"]
        beyond = await asyncio.start_server(other._serve, ELSEWHERE, 443, ssl=other.context)
        owner = ("-m", "owner", "--uid-owner", USER)
        turned = ("-j", "REDIRECT", "--to-ports", str(listener[1]))
        await run("iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-d", ELSEWHERE, *owner, *turned)
        trusted = directory / "trusted.pem"
        trusted.write_bytes(authority.certificate_file.read_bytes() + other.ca.cert_pem.bytes())
        trusted.chmod(0o644)
        directory.chmod(0o755)  # noqa: ASYNC240 - once, before anything waits
        verify = ("--cacert", str(trusted))

        assert await curl(f"https://{AWS}/tls", 443, *verify) == "ok"
        assert await curl(f"https://{AWS}/http1", 443, *verify, "--http1.1") == "ok"
        assert await curl(f"http://{AWS}/plain", 80) == "ok"
        assert [received.target for received in aws.received] == ["/tls", "/http1", "/plain"]
        for received in aws.received:
            assert_signed(received, AWS)

        # All else goes where it was bound for, and nobody looks into it: curl sees that host's own certificate.
        assert await curl(f"https://{OTHER}/x", 443, "--cacert", str(other.write_ca(directory / "other.pem"))) == "ok"
        assert other.received[0].get("authorization") is None

        # Who connects to the listener itself was bound for nowhere.
        async with connected(listener) as (reader, writer):
            writer.write(f"GET / HTTP/1.1\r\nHost: {AWS}\r\n\r\n".encode())
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(reader.read(), 10) == b""
        assert len(aws.received) == 3
        beyond.close()
        await front.drain()
        engine.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
