"""The default region: for hosts that name none, and for what sigward itself asks AWS."""

import os
import re
from dataclasses import dataclass

from sigward.credentials import files
from sigward.errors import UsageError

FALLBACK = "us-east-1"


@dataclass(frozen=True)
class Region:
    """`name`: "eu-west-1", as it stands in a credential scope. `source`: where it was found, for people. `asked`: as it was found: botocore
    and the SDKs read more from some names (`fips-us-east-1`: that FIPS endpoints are wanted)."""

    name: str
    source: str
    asked: str


def resolve_region(flag: str | None, profile: str | None) -> Region:
    """Flag or setting → AWS_REGION → AWS_DEFAULT_REGION → profile → us-east-1. botocore itself ignores AWS_REGION. Raises `UsageError`."""
    found, source = _find(flag, profile)
    found = found.strip()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", found):
        # A slash would end its part of the credential scope, and a dot its label in a host.
        raise UsageError(f"region: {found!r} (from {source}) is no region's name.", hint="Such as eu-west-1.")
    return Region(scope_region(found), source, found)


def _find(flag: str | None, profile: str | None) -> tuple[str, str]:
    if flag:
        return flag, "settings"
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if value := os.environ.get(name):
            return value, name
    if configured := _profile_region(profile):
        return configured, f"profile {profile or os.environ.get('AWS_PROFILE') or 'default'}"
    return FALLBACK, "default"


def scope_region(name: str) -> str:
    """The region that requests are signed for: of `fips-us-east-1` and `us-east-1-fips` without FIPS, as botocore's
    `ClientCreator._normalize_fips_region`; of `aws-global` and its kin the partition's own (`implicitGlobalRegion`)."""
    name = name.replace("fips-", "").replace("-fips", "")
    if name.startswith("aws-") and name.endswith("-global"):
        from botocore.loaders import create_loader

        for partition in create_loader().load_data("partitions")["partitions"]:
            if name in partition["regions"]:
                return str(partition["outputs"]["implicitGlobalRegion"])
    return name


def _profile_region(profile: str | None) -> str | None:
    from botocore.exceptions import BotoCoreError

    try:
        value = files.scoped(profile).get("region")
    except BotoCoreError:
        # The chain tells what is wrong with the profile.
        return None
    return value if isinstance(value, str) else None
