"""An upstream and a client in a process of their own: it can be killed, and it goes on while the test's own process is held up.

Run by `Far` as `python -m tests.far DIRECTORY`; says `listening PORT`, serves until its stdin ends. A request for `/half` gets half
of its answer, one for `/chunks` half of its chunks, one for `/silent` nothing; all others get `ok`. A line `ask HOST PORT` on its stdin
makes it ask there, one request after the other on one connection, and count the answers in `DIRECTORY/answers`.
"""

import asyncio
import mmap
import os
import struct
import sys
from pathlib import Path

from sigward.demo.child import Child, clean_environment
from tests.support import KEY, OK, SECRET, Received, Upstream, read_response

ROOT = Path(__file__).resolve().parent.parent
HALF = 256 << 10
"""Bytes that come of the answers that do not come whole."""
COUNT = struct.Struct("q")


class Far:
    """Runs from its making to `close`, or `kill`. `port`, `ca_file`, `region`, `credentials()`: as `Gateway` wants them of an upstream."""

    region = "us-east-1"

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.ca_file = directory / "ca.pem"
        (directory / "answers").write_bytes(bytes(COUNT.size))
        with (directory / "answers").open("rb") as file:
            self._answers = mmap.mmap(file.fileno(), COUNT.size, prot=mmap.PROT_READ)
        environment = clean_environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "python")])}
        self.child = Child([sys.executable, "-m", "tests.far", str(directory)], environment, ROOT)
        self.port = int(self.child.wait_for(r"^listening (\d+)$")[1])

    def credentials(self) -> dict[str, str]:
        """It takes any."""
        return {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

    def write_ca(self, path: Path) -> Path:
        """The CA's certificate as a PEM file."""
        path.write_bytes(self.ca_file.read_bytes())
        return path

    def ask(self, address: tuple[str, int]) -> None:
        """Begins to ask there, without end."""
        assert self.child.process.stdin is not None
        self.child.process.stdin.write(f"ask {address[0]} {address[1]}\n".encode())
        self.child.process.stdin.flush()

    @property
    def answers(self) -> int:
        """Answers that it has got. Needs no other thread of this process, and lets none run."""
        count: int = COUNT.unpack_from(self._answers)[0]
        return count

    def kill(self) -> None:
        """Ends it as a crash does: the kernel closes its sockets."""
        self.child.process.kill()
        self.child.process.wait()

    def close(self) -> None:
        """Ends it."""
        self.child.stop()
        self._answers.close()


async def answer(received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """By the request's path."""
    if received.target == "/silent":
        sys.stdout.write("silent\n")
        sys.stdout.flush()
    elif received.target == "/half":
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (2 * HALF) + b"x" * HALF)
    elif received.target == "/chunks":
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n" % HALF + b"x" * HALF + b"\r\n")
    else:
        writer.write(OK)
        return
    await writer.drain()
    # Until the other side goes, or this process.
    await reader.read()


async def ask(host: str, port: int, count: mmap.mmap) -> None:
    """One request after the other."""
    reader, writer = await asyncio.open_connection(host, port)
    while True:
        writer.write(b"GET / HTTP/1.1\r\nHost: sqs.us-east-1.amazonaws.com\r\n\r\n")
        response = await read_response(reader)
        assert response.status == 200, response
        COUNT.pack_into(count, 0, COUNT.unpack_from(count)[0] + 1)


async def main(directory: Path) -> None:
    """Serves until stdin ends."""
    told = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    with (directory / "answers").open("r+b") as file:
        count = mmap.mmap(file.fileno(), COUNT.size)
    asking: set[asyncio.Task[None]] = set()
    async with Upstream([answer] * (1 << 16)) as upstream:
        upstream.write_ca(directory / "ca.pem")
        sys.stdout.write(f"listening {upstream.port}\n")
        sys.stdout.flush()
        while line := (await told.readline()).split():
            asking.add(asyncio.create_task(ask(line[1].decode(), int(line[2]), count)))
        for task in asking:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
