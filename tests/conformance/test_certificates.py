"""Certificates that a front makes: clients take them for what the CA vouches for, and for nothing else."""

import ssl
from pathlib import Path

import pytest

from sigward.ca import CertificateAuthority
from tests.conformance.conftest import HOST, Start
from tests.conformance.test_requests import request
from tests.support import Upstream, connected, read_response


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", HOST])
async def test_a_name_that_the_ca_vouches_for(start: Start, upstream: Upstream, name: str) -> None:
    """127.0.0.1 is no server name in TLS: the certificate is for the listener's address, and no other name in it breaks the constraints."""
    proxy = await start(upstream)
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    async with connected(proxy.reverse, ssl=context, server_hostname=name) as (reader, writer):
        writer.write(request())
        assert (await read_response(reader)).status == 200


async def test_clients_that_know_rsa_alone(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    """`ca_key = "rsa2048"`: leaves have the CA's kind of key."""
    CertificateAuthority(tmp_path / "ca", key="rsa2048").ensure()
    proxy = await start(upstream)
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    async with connected(proxy.reverse, ssl=context, server_hostname=HOST) as (reader, writer):
        writer.write(request())
        assert (await read_response(reader)).status == 200


async def test_a_name_that_it_does_not_vouch_for(start: Start, upstream: Upstream) -> None:
    proxy = await start(upstream)
    context = ssl.create_default_context(cafile=str(proxy.ca_file))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        async with connected(proxy.reverse, ssl=context, server_hostname="outside.example.org"):
            pass
