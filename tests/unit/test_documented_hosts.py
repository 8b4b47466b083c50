"""Hosts that AWS's documents name and botocore does not: each has its scope, and a neighbour of it has none."""

import pytest

from sigward import _core
from sigward.knowledge.documented import HOSTS, Documented, documented
from sigward.knowledge.hosts import ON_AWS

ROWS = list(documented())
REGION = "eu-west-1"
VARIANTS = {"v4": "v4", "scope": "scoped", "never": "none"}


def host_of(row: Documented) -> str:
    """One of its hosts."""
    name = row.pattern.replace("*.", "x-1.").replace("{r}", REGION)
    return name if name.endswith(ON_AWS) else f"{name}.amazonaws.com"


def region_of(row: Documented) -> str:
    """What it is signed for; a global endpoint's is the partition's."""
    return ("us-gov-west-1" if row.pattern.endswith(".us-gov") else "us-east-1") if row.region == "{g}" else REGION


def test_each_row_stands_once_and_has_a_source() -> None:
    assert len({row.pattern for row in ROWS}) == len(ROWS)
    assert all(row.source for row in HOSTS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.pattern)
def test_a_documented_host_has_its_scope(row: Documented) -> None:
    host, region = host_of(row), region_of(row)
    found = _core.recognise(host)
    assert found is not None
    assert (found.signing_name, found.region, found.variant) == (row.signing_name, region, VARIANTS[row.takes])
    hinted = _core.recognise(host, (row.signing_name, region))
    assert hinted is not None
    assert hinted.signed == (row.takes != "never"), "a client's own scope turns what may be signed into what is, and nothing else"
    # Another service's scope, or region's, is no word for it.
    for hint in ("iam", region), (row.signing_name, "eu-north-1"):
        other = _core.recognise(host, hint)
        assert other is not None
        assert (other.signing_name, other.region, other.variant) == (found.signing_name, found.region, found.variant)


@pytest.mark.parametrize("row", [row for row in ROWS if row.pattern.startswith("*.")], ids=lambda row: row.pattern)
def test_a_star_is_one_label(row: Documented) -> None:
    host = host_of(row)
    for name in (f"x.y.{host}", f".{host}", host.replace(".", "..", 1), f"{host}.evil.test"):
        assert _core.recognise(name) is None, name


def test_the_hosts_of_a_region_that_is_newer_than_the_table() -> None:
    for host, scope in (
        ("dynamodb.eu-north-9.amazonaws.com", "dynamodb"),
        ("abc.execute-api.eu-north-9.amazonaws.com", "execute-api"),
        ("logs.aos.eu-north-9.on.aws", "es"),
    ):
        found = _core.recognise(host)
        assert found is not None
        assert (found.signing_name, found.region, found.signed) == (scope, "eu-north-9", True)


def test_a_host_that_the_table_lacks_needs_a_word_for_it() -> None:
    for host in ("new-thing.us-east-1.amazonaws.com", "new-thing.us-east-1.api.aws", "vpce-1-a.new-thing.us-east-1.vpce.amazonaws.com"):
        for hint, variant in (
            (None, "unknown"),
            (("new-thing", "us-east-1"), "v4"),
            (("new", "us-east-1"), "unknown"),
            (("iam", "us-east-1"), "unknown"),
            (("new-thing", "us-east-2"), "unknown"),
        ):
            found = _core.recognise(host, hint)
            assert found is not None
            assert (found.signing_name, found.region, found.variant) == ("new-thing", "us-east-1", variant)
