"""Puts an object and prints it: `client.py requests|httpx|aiohttp|urllib3|opensearch|pycurl|boto3 BASE BUCKET KEY TEXT`. All else is in the
environment."""

import sys
from collections.abc import Callable
from urllib.parse import urlsplit


def by_requests(url: str, text: str) -> str:
    import requests

    requests.put(url, data=text.encode(), timeout=30).raise_for_status()
    return requests.get(url, timeout=30).text


def by_httpx(url: str, text: str) -> str:
    import httpx

    httpx.put(url, content=text.encode(), timeout=30).raise_for_status()
    return httpx.get(url, timeout=30).text


def by_aiohttp(url: str, text: str) -> str:
    import asyncio

    import aiohttp

    async def both() -> str:
        # It reads proxies from the environment only if it is told to.
        async with aiohttp.ClientSession(trust_env=True, raise_for_status=True) as session:
            async with session.put(url, data=text.encode()):
                pass
            async with session.get(url) as answer:
                return await answer.text()

    return asyncio.run(both())


def by_urllib3(url: str, text: str) -> str:
    import urllib.request

    import urllib3

    # It reads no proxy from the environment; the standard library does.
    proxy = urllib.request.getproxies().get(urlsplit(url).scheme)
    bypassed = urllib.request.proxy_bypass(urlsplit(url).netloc)
    pool = urllib3.PoolManager() if bypassed or proxy is None else urllib3.ProxyManager(proxy)
    if (answer := pool.request("PUT", url, body=text.encode(), retries=False)).status != 200:
        raise SystemExit(answer.data.decode())
    return pool.request("GET", url, retries=False).data.decode()


def by_opensearch(url: str, text: str) -> str:
    from opensearchpy import OpenSearch, RequestsHttpConnection

    parts = urlsplit(url)
    # The default connection class is urllib3's, which goes past every proxy; this one is requests', with its variables.
    host = f"{parts.scheme}://{parts.netloc}"
    client = OpenSearch(host, connection_class=RequestsHttpConnection, max_retries=0)
    client.transport.perform_request("PUT", parts.path, body=text, headers={"content-type": "text/plain"})
    return str(client.transport.perform_request("GET", parts.path))


def by_pycurl(url: str, text: str) -> str:
    import os
    from io import BytesIO

    import pycurl  # type: ignore[import-not-found,unused-ignore]

    told = b""
    for method in ("PUT", "GET"):
        curl, answer = pycurl.Curl(), BytesIO()
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.CUSTOMREQUEST, method)
        curl.setopt(pycurl.FAILONERROR, True)
        curl.setopt(pycurl.WRITEDATA, answer)
        if method == "PUT":
            curl.setopt(pycurl.POSTFIELDS, text)
            curl.setopt(pycurl.HTTPHEADER, ["content-type: text/plain"])
        # libcurl reads proxies from the environment; what it trusts, the program says.
        if bundle := os.environ.get("SSL_CERT_FILE"):
            curl.setopt(pycurl.CAINFO, bundle)
        curl.perform()
        told = answer.getvalue()
    return told.decode()


def by_boto3(bucket: str, key: str, text: str) -> str:
    import boto3
    from botocore.config import Config

    # A variable, AWS_ENDPOINT_URL_S3, tells of an endpoint.
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    client = boto3.client("s3", config=config)
    client.put_object(Bucket=bucket, Key=key, Body=text.encode())
    return str(client.get_object(Bucket=bucket, Key=key)["Body"].read().decode())


PLAIN: dict[str, Callable[[str, str], str]] = {
    "requests": by_requests,
    "httpx": by_httpx,
    "aiohttp": by_aiohttp,
    "urllib3": by_urllib3,
    "opensearch": by_opensearch,
    "pycurl": by_pycurl,
}


def main(kind: str, base: str, bucket: str, key: str, text: str) -> None:
    print(by_boto3(bucket, key, text) if kind == "boto3" else PLAIN[kind](f"{base}/{bucket}/{key}", text))


main(*sys.argv[1:])
