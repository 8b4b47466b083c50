"""Certificates for clients: mitmproxy issues them, for the names that the CA's constraints leave room for."""

import ipaddress

from cryptography import x509
from mitmproxy.addons.tlsconfig import TlsConfig
from mitmproxy.certs import CertStoreEntry
from mitmproxy.proxy.context import Context
from mitmproxy.tls import TlsData

from sigward import _core
from sigward.mitm.internals import is_inside_connect


class Leaves(TlsConfig):
    """mitmproxy's, but a leaf names what the client looks for and nothing else.

    mitmproxy's own also names the listener's address, the upstream, and one of them as common name. Name constraints hold for each of
    these: a single one beyond them, and the client takes the leaf for no host at all.
    """

    def __init__(self, engine: _core.Engine) -> None:
        self.engine = engine

    def tls_start_client(self, tls_start: TlsData) -> None:
        """mitmproxy's hook: what the handshake with a client goes by."""
        if tls_start.ssl_conn is not None:
            # Another addon's.
            return
        super().tls_start_client(tls_start)
        context = tls_start.context
        # h2 refuses a CONNECT without :scheme and :path, which is the form of RFC 9113, section 8.5.
        to_the_proxy = context.client.proxy_mode.type_name == "regular" and not is_inside_connect(context)
        if tls_start.ssl_conn is not None and (to_the_proxy or not self.engine.offers_http2(context.client.sni or "")):
            tls_start.ssl_conn.get_app_data()["http2"] = False

    def get_cert(self, conn_context: Context) -> CertStoreEntry:
        """mitmproxy's hook, called before a handshake with a client."""
        client, server = conn_context.client, conn_context.server
        if client.sni:
            host = client.sni
        elif is_inside_connect(conn_context) and server.address:
            host = server.address[0]
        else:
            # Without a name, the client knows the listener by its address.
            host = client.sockname[0]
        return self.certstore.get_cert(None, [general_name(host)])


def general_name(host: str) -> x509.GeneralName:
    """An address, or a domain without a dot at its end."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.rstrip(".").encode("idna").decode())
