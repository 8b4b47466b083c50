"""Certificates for clients: the engine issues them, as it does for the native front. mitmproxy agrees on the rest of TLS."""

import functools
import ipaddress
import logging
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key
from mitmproxy import ctx
from mitmproxy.addons import tlsconfig
from mitmproxy.net import tls as net_tls
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import modes
from mitmproxy.tls import TlsData
from OpenSSL import SSL

from sigward import _core
from sigward.mitm.internals import is_inside_connect
from sigward.mitm.log_once import once_a_day

logger = logging.getLogger(__name__)

OF_ITS_CA = frozenset({"certs", "confdir", "key_size", "cert_passphrase"})
"""mitmproxy's options that make it read a CA."""


@functools.lru_cache(maxsize=256)
def server_context(
    chain: tuple[bytes, ...],
    key: bytes,
    minimum: net_tls.Version,
    maximum: net_tls.Version,
    ciphers: tuple[str, ...],
    curve: str | None,
    asks_for_certificate: bool,
) -> SSL.Context:
    """What a TLS server needs. One for each leaf: a session that began with an old one is not taken up again.

    `chain`: the leaf, then what stands behind it, in DER. `key`: PKCS #8, in DER.
    """
    context = net_tls.create_client_proxy_context.__wrapped__(
        method=net_tls.Method.TLS_SERVER_METHOD,
        min_version=minimum,
        max_version=maximum,
        cipher_list=ciphers,
        ecdh_curve=net_tls.get_curve(curve) if curve else None,
        chain_file=None,
        alpn_select_callback=tlsconfig.alpn_select_callback,
        request_client_cert=asks_for_certificate,
        extra_chain_certs=(),
        # No key exchange without elliptic curves, as in the native front.
        dhparams=None,
    )
    leaf, *behind = map(x509.load_der_x509_certificate, chain)
    secret = load_der_private_key(key, None)
    assert isinstance(secret, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    context.use_certificate(leaf)
    context.use_privatekey(secret)
    for certificate in behind:
        context.add_extra_chain_cert(certificate)
    return context


class Leaves(tlsconfig.TlsConfig):
    """mitmproxy's, but the CA is the engine's, and a leaf names what the client looks for and nothing else.

    mitmproxy keeps a leaf for ever, reads the CA once, and advises to delete a folder of its own when that has expired. Its leaves also
    name the listener's address, the upstream, and one of them as common name. Name constraints hold for each of these: a single one beyond
    them, and the client takes the leaf for no host at all.
    """

    request: Any = None
    """mitmproxy's hook: it would answer requests for the list of revoked certificates, which no leaf names."""

    def __init__(self, engine: _core.Engine) -> None:
        self.engine = engine

    def running(self) -> None:
        """mitmproxy's hook: it would read the CA again."""

    def configure(self, updated: set[str]) -> None:
        """mitmproxy's hook, when options change."""
        super().configure(updated - OF_ITS_CA)  # type: ignore[no-untyped-call]

    def tls_start_client(self, tls_start: TlsData) -> None:
        """mitmproxy's hook: what the handshake with a client goes by."""
        if tls_start.ssl_conn is not None:
            # Another addon's.
            return
        context = tls_start.context
        try:
            chain, key = self.engine.certificate(host_of(context))
        except ValueError as error:
            tell_unmade(str(error))
            return
        client, options = context.client, ctx.options
        minimum = net_tls.Version[options.tls_version_client_min]
        if not client.cipher_list and options.ciphers_client:
            client.cipher_list = options.ciphers_client.split(":")
        ssl = SSL.Connection(
            server_context(
                chain,
                key,
                minimum,
                net_tls.Version[options.tls_version_client_max],
                tuple(client.cipher_list) or tlsconfig._default_ciphers(minimum),
                options.tls_ecdh_curve_client,
                options.request_client_cert,
            )
        )
        # h2 refuses a CONNECT without :scheme and :path, which is the form of RFC 9113, section 8.5.
        to_the_proxy = client.proxy_mode.type_name == "regular" and not is_inside_connect(context)
        http2 = options.http2 and not to_the_proxy and self.engine.offers_http2(client.sni or "")
        # mitmproxy's own layer for TLS to a proxy takes HTTP/1.1 alone.
        only = b"http/1.1" if len(context.layers) == 2 and isinstance(context.layers[0], modes.HttpProxy) else client.alpn
        ssl.set_app_data(tlsconfig.AppData(client_alpn=only, server_alpn=context.server.alpn, http2=http2))
        ssl.set_accept_state()
        tls_start.ssl_conn = ssl


@once_a_day
def tell_unmade(why: str) -> None:
    """To the log: the client only says that the handshake failed."""
    logger.warning("TLS handshake failed: %s", why)


def host_of(context: Context) -> str:
    """Whom the client takes this server for: a name in ASCII without a dot at its end, or an address. Raises ValueError if it is
    neither."""
    client, server = context.client, context.server
    if client.sni:
        host = client.sni
    elif is_inside_connect(context) and server.address:
        host = server.address[0]
    else:
        # Without a name, the client knows the listener by its address.
        host = client.sockname[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.rstrip(".").encode("idna").decode()
