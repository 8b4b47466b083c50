"""The default region: for hosts that name none, and for what sigward itself asks AWS."""

import os
from dataclasses import dataclass

from sigward.credentials import files

FALLBACK = "us-east-1"


@dataclass(frozen=True)
class Region:
    """`name`: "eu-west-1". `source`: where it was found, for people."""

    name: str
    source: str


def resolve_region(flag: str | None, profile: str | None) -> Region:
    """Flag or setting → AWS_REGION → AWS_DEFAULT_REGION → profile → us-east-1. botocore itself ignores AWS_REGION."""
    if flag:
        return Region(flag, "settings")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if value := os.environ.get(name):
            return Region(value, name)
    if configured := _profile_region(profile):
        return Region(configured, f"profile {profile or os.environ.get('AWS_PROFILE') or 'default'}")
    return Region(FALLBACK, "default")


def _profile_region(profile: str | None) -> str | None:
    from botocore.exceptions import BotoCoreError

    try:
        value = files.scoped(profile).get("region")
    except BotoCoreError:
        # The chain tells what is wrong with the profile.
        return None
    return value if isinstance(value, str) else None
