"""Puts an object and prints it: `client.py requests|httpx|boto3 BASE BUCKET KEY TEXT`. All else is in the environment."""

import sys
from collections.abc import Callable


def by_requests(url: str, text: str) -> str:
    import requests

    requests.put(url, data=text.encode(), timeout=30).raise_for_status()
    return requests.get(url, timeout=30).text


def by_httpx(url: str, text: str) -> str:
    import httpx

    httpx.put(url, content=text.encode(), timeout=30).raise_for_status()
    return httpx.get(url, timeout=30).text


def by_boto3(bucket: str, key: str, text: str) -> str:
    import boto3
    from botocore.config import Config

    # A variable, AWS_ENDPOINT_URL_S3, tells of an endpoint.
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
    client = boto3.client("s3", config=config)
    client.put_object(Bucket=bucket, Key=key, Body=text.encode())
    return str(client.get_object(Bucket=bucket, Key=key)["Body"].read().decode())


PLAIN: dict[str, Callable[[str, str], str]] = {"requests": by_requests, "httpx": by_httpx}


def main(kind: str, base: str, bucket: str, key: str, text: str) -> None:
    print(by_boto3(bucket, key, text) if kind == "boto3" else PLAIN[kind](f"{base}/{bucket}/{key}", text))


main(*sys.argv[1:])
