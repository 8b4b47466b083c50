"""The default region's order: each one added wins over all before."""

import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.session import Session

from sigward.credentials import Chain, resolve_region
from sigward.errors import UsageError


def test_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(flag: str | None = None, profile: str | None = None) -> tuple[str, str]:
        region = resolve_region(flag, profile)
        return region.name, region.source

    assert resolved() == ("us-east-1", "default")
    Path(os.environ["AWS_CONFIG_FILE"]).write_text("[default]\nregion = eu-north-1\n[profile other]\nregion = eu-south-1\n")
    assert resolved() == ("eu-north-1", "profile default")
    assert resolved(profile="other") == ("eu-south-1", "profile other")
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert resolved() == ("eu-south-1", "profile other")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert resolved() == ("eu-west-2", "AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert resolved() == ("eu-west-1", "AWS_REGION")
    assert resolved("ap-south-1") == ("ap-south-1", "settings")


@pytest.mark.parametrize("name", ["x/y", "eu west-1", "a.evil.test", "-x", "é", "x" * 64, " "])
def test_what_is_no_region_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", name)
    with pytest.raises(UsageError, match="from AWS_REGION"):
        resolve_region(None, None)
    with pytest.raises(UsageError, match="from settings"):
        resolve_region(name, None)
    monkeypatch.setenv("AWS_REGION", " eu-west-1\t")
    assert resolve_region(None, None).asked == "eu-west-1"


def test_a_profile_that_is_not_there_is_the_chains_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_region(None, "nowhere").name == "us-east-1"
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    assert resolve_region(None, None).name == "us-east-1"


@pytest.mark.parametrize(
    ("name", "service"),
    [
        # Of the pseudo-regions, botocore itself knows each partition's for its global services alone.
        *((f"aws{partition}-global", "route53") for partition in ("", "-cn", "-us-gov", "-iso", "-iso-b", "-iso-e", "-iso-f")),
        *((name, "sts") for name in ("fips-us-gov-west-1", "us-east-1-fips", "eu-west-1", "no-such-global")),
    ],
)
def test_what_stands_in_a_scope_is_what_botocore_signs_for(name: str, service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session()
    session.set_credentials("AKID", "secret")
    client = session.create_client(service, region_name=name)
    url = client.generate_presigned_url({"route53": "list_hosted_zones", "sts": "get_caller_identity"}[service])
    monkeypatch.setenv("AWS_REGION", name)
    region = resolve_region(None, None)
    scope = parse_qs(urlsplit(url).query)["X-Amz-Credential"][0].split("/")
    assert (region.name, region.asked) == (scope[2], name)


def test_fips_is_asked_for_where_the_region_says_so() -> None:
    """Of sigward's own calls."""

    def host(region: str) -> str | None:
        client = Chain(None, region).session().create_client("sts", aws_access_key_id="a", aws_secret_access_key="b")
        return urlsplit(client.generate_presigned_url("get_caller_identity")).hostname

    assert host("fips-us-east-1") == "sts-fips.us-east-1.amazonaws.com"
    assert host("aws-cn-global") == "sts.cn-northwest-1.amazonaws.com.cn"
