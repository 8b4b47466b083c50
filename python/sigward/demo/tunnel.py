"""A plain CONNECT proxy that leads every host to the emulator: how a client gets there without sigward."""

import contextlib
import socket
import socketserver
import threading
from types import TracebackType
from typing import Self


class Tunnel(socketserver.ThreadingTCPServer):
    """Starts with `with`. `url`: for HTTPS_PROXY. It looks into nothing and changes nothing."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        """`port`: of the emulator on 127.0.0.1."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()
        self.server_close()


class Handler(socketserver.StreamRequestHandler):
    """One CONNECT."""

    server: Tunnel

    def handle(self) -> None:
        """Reads the head, answers 200, and passes bytes both ways until one side ends."""
        while self.rfile.readline() not in (b"\r\n", b"\n", b""):
            pass
        with socket.create_connection(self.server.upstream) as upstream:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=copy, args=(upstream, self.connection), daemon=True)
            back.start()
            copy(self.connection, upstream)
            back.join()


def copy(source: socket.socket, sink: socket.socket) -> None:
    """Bytes one way, then its end."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
