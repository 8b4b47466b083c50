"""Gives a client that knows no proxies the way through one: each connection made to it becomes a CONNECT."""

import socket
import socketserver
import threading
from types import TracebackType
from typing import Self

from sigward.demo.tunnel import copy


class Relay(socketserver.ThreadingTCPServer):
    """Starts with `with`. `address`: where it listens, "127.0.0.1:PORT"."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, proxy: str, target: str) -> None:
        """`proxy`: "127.0.0.1:PORT". `target`: "HOST:PORT" for CONNECT."""
        super().__init__(("127.0.0.1", 0), Handler)
        host, _, port = proxy.rpartition(":")
        self.proxy = (host, int(port))
        self.target = target
        self.address = f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()
        self.server_close()


class Handler(socketserver.BaseRequestHandler):
    """One connection."""

    server: Relay

    def handle(self) -> None:
        """CONNECT, then bytes both ways."""
        with socket.create_connection(self.server.proxy) as proxy:
            target = self.server.target
            proxy.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                piece = proxy.recv(1)
                if not piece:
                    return
                answer += piece
            for side in (proxy, self.request):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=copy, args=(proxy, self.request), daemon=True)
            back.start()
            copy(self.request, proxy)
            back.join()
