"""An upstream in a process of its own that writes down each call that it carries out, before it answers.

Run as `python -m tests.ledger DIRECTORY PORT`: `DIRECTORY/upstream.pem` is its certificate with the key. It says `listening`, and serves
until it is killed. A line of `DIRECTORY/ledger` is the path of a call. What becomes of a call is in its path: `/FATE/…`.
"""

import asyncio
import os
import ssl
import sys
from pathlib import Path

FATES = ("fine", "throttled", "fails", "vanishes", "half", "lost")
"""Carried out and answered; throttled the first time; carried out and 500; carried out and no answer; half an answer; not carried out
and no answer. All but `fine` are over after the first time: the second is fine."""

FINE = b'HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: 18\r\n\r\n{"MessageId": "1"}'
FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\n{}"
THROTTLED = (
    b"HTTP/1.1 400 Bad Request\r\nx-amzn-errortype: ThrottlingException\r\ncontent-type: application/x-amz-json-1.0\r\n"
    b'content-length: 33\r\n\r\n{"__type": "ThrottlingException"}'
)


class Ledger:
    """What has been carried out. It is with the kernel when `enter` returns: a killed process loses nothing of it."""

    def __init__(self, path: Path) -> None:
        self.seen: set[bytes] = set()
        self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def enter(self, path: bytes) -> None:
        """Another call is carried out."""
        os.write(self.descriptor, path + b"\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while await self.answer(reader, writer):
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.transport.abort()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request. False: the connection ends."""
        head = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        path = head[0].split(b" ")[1]
        length = next((line.partition(b":")[2] for line in head if line.startswith(b"content-length:")), b"0")
        await reader.readexactly(int(length))
        fate = path.split(b"/")[1].decode() if path not in self.seen else "fine"
        self.seen.add(path)
        if fate == "throttled":
            writer.write(THROTTLED)
            return True
        if fate == "lost":
            return False
        self.enter(path)
        if fate in ("vanishes", "half"):
            if fate == "half":
                writer.write(FINE[:-9])
                await writer.drain()
            return False
        writer.write(FAILED if fate == "fails" else FINE)
        return True


async def main(directory: Path, port: int) -> None:
    """Serves."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "upstream.pem")
    server = await asyncio.start_server(Ledger(directory / "ledger").serve, "127.0.0.1", port, ssl=context)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
