"""mitmproxy alone, with the addons that sigward's front uses and none of sigward's: what the front is measured against.

`python -m tests.bench.bare_mitmproxy UPSTREAM CA_FILE CONFDIR`; says `listening REVERSE FORWARD`, ends on SIGTERM.
"""

import asyncio
import signal
import sys

from mitmproxy.addons.errorcheck import ErrorCheck
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.master import Master
from mitmproxy.options import Options

from sigward.front import loop_factory
from sigward.mitm.front import Ready


async def main(upstream: str, ca_file: str, confdir: str) -> None:
    """Serves until SIGTERM."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    modes = [f"reverse:{upstream}@127.0.0.1:0", "regular@127.0.0.1:0"]
    master = Master(Options(mode=modes, confdir=confdir))
    server = Proxyserver()  # type: ignore[no-untyped-call]
    master.addons.add(server, NextLayer(), TlsConfig(), ErrorCheck(), Ready(ready))  # type: ignore[no-untyped-call]
    master.options.update(  # type: ignore[no-untyped-call]
        connection_strategy="lazy",
        stream_large_bodies=str(1 << 20),
        store_streamed_bodies=False,
        upstream_cert=False,
        validate_inbound_headers=True,
        http3=False,
        ssl_verify_upstream_trusted_ca=ca_file,
    )
    loop.add_signal_handler(signal.SIGTERM, master.shutdown)
    running = loop.create_task(master.run())
    await ready.wait()
    reverse, forward = ("{}:{}".format(*instance.listen_addrs[0]) for instance in server.servers)
    sys.stdout.write(f"listening {reverse} {forward}\n")
    sys.stdout.flush()
    await running


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main(*sys.argv[1:4]))
