"""The default region's order: each one added wins over all before."""

import os
from pathlib import Path

import pytest

from sigward.credentials import resolve_region


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


def test_a_profile_that_is_not_there_is_the_chains_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_region(None, "nowhere").name == "us-east-1"
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    assert resolve_region(None, None).name == "us-east-1"
