"""What an HTTP/2 client has left."""

import pytest

from sigward.mitm import floods


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is."""
    now = [0.0]
    monkeypatch.setattr("sigward.mitm.floods.time.monotonic", lambda: now[0])
    return now


def test_an_allowance_comes_back_with_time(clock: list[float]) -> None:
    allowance = floods.Allowance(10, 2)
    assert all(allowance.spend(1) for _ in range(10))
    assert not allowance.spend(1)
    clock[0] += 1.5
    assert [allowance.spend(1) for _ in range(4)] == [True, True, True, False]
    clock[0] += 1000
    assert sum(allowance.spend(1) for _ in range(20)) == 10, "never more than it holds"


def test_an_allowance_is_earned(clock: list[float]) -> None:
    allowance = floods.Allowance(10, 0)
    for _ in range(100):
        assert allowance.spend(2)
        allowance.earn(2)
    allowance.earn(1000)
    assert sum(allowance.spend(1) for _ in range(20)) == 10
    assert clock == [0.0]


def test_streams_that_never_were_requests_cost_more(clock: list[float]) -> None:
    assert clock == [0.0]
    spent = {}
    for wasted in (False, True):
        ledger = floods.Ledger()
        spent[wasted] = next(number for number in range(10_000) if not ledger.reset(wasted=wasted))
    assert spent == {False: floods.RESETS, True: floods.RESETS / floods.WASTE}


def test_large_frames_cost_more(clock: list[float]) -> None:
    assert clock == [0.0]
    ledger = floods.Ledger()
    assert ledger.frame(16_384)
    assert next(number for number in range(10_000) if not ledger.frame(16_384)) < 10


def test_a_client_that_reads_may_say_so(clock: list[float]) -> None:
    """A window for its stream and its connection, for each piece of an answer."""
    assert clock == [0.0]
    ledger = floods.Ledger()
    for _ in range(10_000):
        ledger.sent(1)
        assert ledger.frame(4)
        assert ledger.frame(4)
