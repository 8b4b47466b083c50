"""What the front is measured against: mitmproxy with the same minimal addons, none of sigward's, and its own upstream half.

Usage: bare_mitmproxy.py UPSTREAM_PORT CA_FILE CONFDIR [--http2]. Prints its port.
"""

import asyncio
import sys

from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.master import Master
from mitmproxy.options import Options

from sigward.mitm.front import loop_factory


class Told:
    """Prints the port when mitmproxy runs."""

    def __init__(self, server: Proxyserver) -> None:
        self.server = server

    def running(self) -> None:
        for instance in self.server.servers:
            print(instance.listen_addrs[0][1], flush=True)


async def main(upstream_port: str, ca_file: str, confdir: str, scheme: str) -> None:
    mode = f"reverse:https://localhost:{upstream_port}@127.0.0.1:0" if scheme == "reverse" else "regular@127.0.0.1:0"
    options = Options(mode=[mode], confdir=confdir, ssl_verify_upstream_trusted_ca=ca_file)
    master = Master(options)
    server = Proxyserver()
    master.addons.add(server, NextLayer(), TlsConfig(), Told(server))
    options.update(connection_strategy="lazy", http3=False)
    await master.run()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], sys.argv[3], "reverse"))
