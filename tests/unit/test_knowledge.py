"""The table that ships: made of botocore's data alone, and right about every operation."""

from collections.abc import Iterable, Iterator
from functools import cache

import pytest
from botocore import __version__ as botocore_version

from sigward import _core
from sigward.knowledge.__main__ import SHIPPED
from sigward.knowledge.build import build
from sigward.knowledge.hosts import Endpoint, endpoints
from sigward.knowledge.models import Service, services
from sigward.knowledge.report import measure, measure_hosts


@cache
def resolved() -> dict[str, list[Endpoint]]:
    """What botocore's resolver gives for each service: that takes it most of a minute."""
    found: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints():
        found.setdefault(endpoint.service, []).append(endpoint)
    return found


@pytest.fixture(autouse=True)
def resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all tests here."""

    def again(known: Iterable[Service] | None = None) -> Iterator[Endpoint]:
        names = resolved().keys() if known is None else [service.name for service in known]
        return (endpoint for name in names for endpoint in resolved().get(name, ()))

    monkeypatch.setattr("sigward.knowledge.build.endpoints", again)
    monkeypatch.setattr("sigward.knowledge.report.endpoints", again)


def test_every_operation_as_botocore_serialises_it_is_recognised() -> None:
    result = measure(_core.Knowledge())
    assert result.total > 40_000
    assert result.wrong == []
    assert result.missed == []
    assert len(result.explained) < result.total / 100


def test_every_endpoint_of_botocores_resolver_has_its_scope() -> None:
    result = measure_hosts()
    assert result.total > 70_000
    assert result.wrong == []
    assert result.hinted > 0
    assert result.unsigned > 0
    assert sum(result.explained.values()) < result.total / 300


def test_the_measure_can_fail() -> None:
    """A table of one service knows nothing of another."""
    table = _core.Knowledge(build(service for service in services() if service.name == "sqs"))
    assert len(measure_hosts(table).wrong) > 1000
    assert measure(table, ["sqs"]).right > 0
    assert measure(table, ["sns"]).right == 0


def test_the_same_input_gives_the_same_bytes() -> None:
    first = build()
    assert first == build(reversed(list(services())))
    assert len(first) <= 1.5 * 2**20
    if f"botocore {botocore_version}" == _core.Knowledge().source:
        assert first == SHIPPED.read_bytes()


@pytest.mark.parametrize("change", [lambda table: table[:-1], lambda table: table + b"x", lambda table: b"", lambda table: b"x" * 99])
def test_a_damaged_table_is_refused(change) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(_core.SettingsError, match="knowledge"):
        _core.Knowledge(change(SHIPPED.read_bytes()))


@pytest.mark.parametrize(
    ("service", "method", "path", "form", "unsigned"),
    [
        ("sts", "POST", "/", b"Action=AssumeRoleWithWebIdentity&Version=2011-06-15", True),
        ("sts", "GET", "/?Action=AssumeRoleWithSAML&Version=2011-06-15", None, True),
        ("sts", "POST", "/", b"Action=GetCallerIdentity&Version=2011-06-15", False),
        ("awsssoportal", "GET", "/federation/credentials?role_name=r&account_id=1", None, None),
    ],
)
def test_unsigned_operations(service: str, method: str, path: str, form: bytes | None, unsigned: bool | None) -> None:
    headers = [(b"content-type", b"application/x-www-form-urlencoded")] if form else []
    found = _core.Knowledge().read(service, f"{service}.us-east-1.amazonaws.com", method, path, headers, form or b"").operation
    assert (found.unsigned if found else None) is unsigned
