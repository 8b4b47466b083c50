"""The CA has an end: no certificate outlives it, clients hear of it in words, and a renewed one is taken by a running process."""

import asyncio
import datetime
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from sigward import ca
from sigward.ca import CertificateAuthority
from sigward.front import NativeFront, load_authority
from tests.conformance.conftest import HOST, Proxy, Start
from tests.conformance.test_requests import request
from tests.support import Upstream, connected, counted, read_response

DAY = datetime.timedelta(days=1)


async def shown_to(proxy: Proxy, listener: str, host: str = HOST) -> x509.Certificate:
    """The certificate that a listener shows to a client that verifies nothing."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with connected(getattr(proxy, listener), ssl=context, server_hostname=host) as (_, writer):
        return x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))


async def test_every_front_gives_the_same_life(proxy: Proxy) -> None:
    leaf = await shown_to(proxy, "reverse")
    made = datetime.datetime.now(datetime.UTC)
    assert abs(leaf.not_valid_before_utc - (made - 2 * DAY)) < datetime.timedelta(minutes=2)
    assert abs(leaf.not_valid_after_utc - (made + 90 * DAY)) < datetime.timedelta(minutes=2)
    assert leaf.serial_number == (await shown_to(proxy, "fixed")).serial_number, "it is made once"


async def test_no_leaf_outlives_its_ca(start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca, "LIFETIME", 10 * DAY)
    proxy = await start(upstream)
    root = x509.load_pem_x509_certificate(proxy.ca_file.read_bytes())
    leaf = await shown_to(proxy, "reverse")
    assert (leaf.not_valid_after_utc, leaf.serial_number) == (
        root.not_valid_after_utc,
        (await shown_to(proxy, "reverse")).serial_number,
    )
    async with proxy.tunnel(f"{HOST}:443", HOST) as (reader, writer):
        writer.write(request())
        assert (await read_response(reader)).status == 200
    assert 9 * 86_400 < counted(proxy.engine.metrics(), "sigward_ca_expiry_seconds") <= 10 * 86_400
    # Nothing is known of a certificate that is not there.
    assert "\nsigward_tls_certificate_expiry_seconds" not in proxy.engine.metrics()


@pytest.mark.fault("the CA has expired", holds="a CONNECT is refused with 503 `ca-expired` and the fix; plain listeners serve")
async def test_an_expired_ca(start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(ca, "LIFETIME", -DAY / 2)
    proxy = await start(upstream)
    proxy.engine.set_ready("listeners", True)
    raw = f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode()
    response = await proxy.ask(raw, to=proxy.forward)
    assert (response.status, response.get("x-sigward-error")) == (503, "ca-expired")
    assert "sigward ca renew" in str(response.get("x-sigward-reason"))
    # Without a CONNECT the client itself says what is wrong.
    context = ssl.create_default_context(cafile=str(proxy.ca_file))

    def connect() -> None:
        with socket.create_connection(proxy.reverse, timeout=10) as raw:
            context.wrap_socket(raw, server_hostname=HOST)

    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        await asyncio.to_thread(connect)
    assert (await proxy.ask(request())).status == 200
    assert proxy.engine.is_ready(), "its reverse listeners serve"
    assert counted(proxy.engine.metrics(), "sigward_ca_expiry_seconds") < -11 * 3600
    assert [(name, state) for name, state, *_ in proxy.engine.certificates()] == [("ca", "expired")]
    if isinstance(proxy.front, NativeFront):
        async with asyncio.timeout(10):
            while "the client says that the certificate has expired" not in caplog.text:
                proxy.front._take()
                await asyncio.sleep(0.01)
    # mitmproxy's own advice is to delete `~/.mitmproxy`.
    assert [record.levelname for record in caplog.records if "sigward ca renew" in record.message] == ["ERROR"]
    assert "~/.mitmproxy" not in caplog.text


async def test_nobody_can_be_served_with_an_expired_ca(start: Start, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ca, "LIFETIME", -DAY / 2)
    proxy = await start(upstream, options={"reverse": ()})
    proxy.engine.set_ready("listeners", True)
    assert not proxy.engine.is_ready()


@pytest.mark.fault(
    "the CA is renewed under a running process", holds="new handshakes use it; open connections and a broken file change nothing"
)
async def test_a_renewed_ca(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    proxy = await start(upstream)
    authority = CertificateAuthority(tmp_path / "ca")
    before = await shown_to(proxy, "reverse")
    async with proxy.tunnel(f"{HOST}:443", HOST) as (reader, writer):
        load_authority(proxy.engine, authority.directory)
        assert (await shown_to(proxy, "reverse")).serial_number == before.serial_number, "the same CA: leaves are kept"
        authority.renew()
        assert (await shown_to(proxy, "reverse")).serial_number == before.serial_number, "whoever renews it says when"
        load_authority(proxy.engine, authority.directory)
        writer.write(request())
        assert (await read_response(reader)).status == 200
    async with proxy.tunnel(f"{HOST}:443", HOST) as (reader, writer):
        writer.write(request())
        assert (await read_response(reader)).status == 200
    renewed = await shown_to(proxy, "reverse")
    authority.key_file.write_text("nonsense")
    with pytest.raises(ValueError, match=r"mitmproxy-ca\.pem"):
        proxy.engine.load_authority(str(authority.key_file))
    assert (await shown_to(proxy, "reverse")).serial_number == renewed.serial_number


@pytest.mark.native("its reverse listeners alone show `tls.certificate`")
async def test_a_certificate_of_the_operators(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    def issue(days: int) -> None:
        made = upstream.ca.issue_cert("localhost", not_after=datetime.datetime.now(datetime.UTC) + days * DAY)
        made.cert_chain_pems[0].write_to_path(str(tmp_path / "given.pem"))
        made.private_key_pem.write_to_path(str(tmp_path / "given.key"))

    issue(200)
    tls = {"ca_files": [str(tmp_path / "upstream.pem")], "system_roots": False}
    tls |= {"certificate": str(tmp_path / "given.pem"), "key": str(tmp_path / "given.key")}
    proxy = await start(upstream, tls=tls)
    assert [(name, state) for name, state, *_ in proxy.engine.certificates()] == [("ca", "valid"), ("tls.certificate", "valid")]
    for days, expected in ((5, "soon"), (-1, "expired")):
        issue(days)
        proxy.point_to(upstream.port)
        ((_, state, _, what, hint),) = [told for told in proxy.engine.certificates() if told[0] == "tls.certificate"]
        assert (state, "SIGHUP" in hint) == (expected, True), what
        left = counted(proxy.engine.metrics(), "sigward_tls_certificate_expiry_seconds") / 86_400
        assert days - 1 < left <= days
    proxy.engine.set_ready("listeners", True)
    assert proxy.engine.is_ready()


async def test_a_session_is_of_one_leaf(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """A client that takes up a session looks at no certificate: a new leaf is not to be passed by."""
    proxy = await start(upstream)
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session: ssl.SSLSession | None = None

    def reused() -> bool:
        nonlocal session
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        handshake = context.wrap_bio(incoming, outgoing, server_hostname=HOST, session=session)
        with socket.create_connection(proxy.reverse, timeout=10) as raw:
            while True:
                try:
                    handshake.do_handshake()
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    incoming.write(raw.recv(1 << 16))
                else:
                    break
            raw.sendall(outgoing.read())
        session = handshake.session
        return bool(handshake.session_reused)

    assert [await asyncio.to_thread(reused) for _ in range(2)] == [False, True]
    authority = CertificateAuthority(tmp_path / "ca")
    old = proxy.ca_file.read_text()
    authority.renew()
    load_authority(proxy.engine, authority.directory)
    context.load_verify_locations(cadata=old + authority.certificate_file.read_text())
    assert [await asyncio.to_thread(reused) for _ in range(2)] == [False, True]
