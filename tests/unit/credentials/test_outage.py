"""Many identities whose source does not work: one at a time tries, all hear of it, one line says so, and all go on when it is back."""

import threading
from typing import Any

import pytest

from sigward.credentials import Assume, Chain, Keeper, Pool, Snapshot
from sigward.credentials import keeper as module
from sigward.credentials.chain import NO_ANSWER, UNABLE
from sigward.credentials.outage import Outage
from tests.unit.credentials.servers import Sts, StsHandler
from tests.unit.credentials.test_bounds import HEAD, Endless, endless, wait

__all__ = ["endless"]
MANY = 40
DEAD = b"<ErrorResponse><Error><Code>InternalFailure</Code></Error></ErrorResponse>"


@pytest.fixture
def failing(sts: Sts, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """STS, that fails as long as `status` says so. `most`: how many it was asked by at once since `calls` was 0."""
    state: dict[str, Any] = {"status": 500, "calls": 0, "now": 0, "most": 0}
    answer, lock = StsHandler.do_POST, threading.Lock()

    def do_post(self: StsHandler) -> None:
        with lock:
            state["calls"] += 1
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
        try:
            if state["status"] == 200:
                answer(self)
                return
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(state["status"])
            self.send_header("content-length", str(len(DEAD)))
            self.end_headers()
            self.wfile.write(DEAD)
        finally:
            with lock:
                state["now"] -= 1

    monkeypatch.setattr(StsHandler, "do_POST", do_post)
    del sts
    return state


@pytest.mark.fault(
    "STS fails, for many identities", holds="one at a time asks it, one line says so, and all have keys soon after it is back"
)
def test_one_tries_for_all(failing: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "URGENT_RETRY", 0.4)
    monkeypatch.setattr(module, "FIRST_RETRY", 0.2)
    pool = Pool(4)
    got, failed = set(), set()

    def keeper(number: int) -> Keeper:
        def publish(_: Snapshot) -> None:
            got.add(number)

        chain = Chain(None, "us-east-1", assume=Assume(role_arn=f"arn:aws:iam::123456789012:role/r{number}"))
        return Keeper(chain, publish, lambda _: failed.add(number), pool=pool)

    keepers = [keeper(number) for number in range(MANY)]
    for each in keepers:
        each.start()
    for each in keepers:
        assert each.wait_loaded(60), "the first requests need not wait for their own try"
    assert len(failed) == MANY
    assert {each.failure.kind for each in keepers if each.failure} == {UNABLE}
    # Those that began before it was known; each call is made twice.
    assert failing["calls"] <= 2 * (pool._most + 2)
    assert caplog.text.count("no credentials") == 1
    before, failing["most"] = failing["calls"], 0
    for each in keepers:
        each.request_refresh()
    wait(lambda: failing["calls"] >= before + 6)
    assert failing["most"] == 1
    assert caplog.text.count("no credentials") == 1
    failing["status"] = 200
    wait(lambda: len(got) == MANY)
    assert not pool._outages
    for each in keepers:
        each.close()
    assert pool.join(20)


@pytest.mark.fault(
    "STS answers a byte at a time, for many identities", holds="it counts as down: few ask it, all hear of it, one line says so"
)
def test_a_source_that_drips_is_down(endless: Endless, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    endless.head, endless.more, endless.pause = HEAD + b"Content-Length: 1000000\r\n\r\n", b" ", 0.05
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endless.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "env-secret")
    pool = Pool(4)
    keepers = [
        Keeper(
            Chain(None, "us-east-1", 2.0, Assume(role_arn=f"arn:aws:iam::123456789012:role/r{number}")),
            lambda _: None,
            lambda _: None,
            pool=pool,
        )
        for number in range(MANY)
    ]
    for each in keepers:
        each.start()
    for each in keepers:
        assert each.wait_loaded(60)
        assert each.failure is not None
        assert (each.failure.down, each.failure.kind) == ("STS", NO_ANSWER)
    assert caplog.text.count("no credentials") == 1
    for each in keepers:
        each.close()
    assert pool.join(20)


def test_a_keeper_that_is_closed_leaves_the_try_to_another(failing: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "URGENT_RETRY", 0.2)
    monkeypatch.setattr(module, "FIRST_RETRY", 0.1)
    pool = Pool(4)
    role = Assume(role_arn="arn:aws:iam::123456789012:role/r")
    got: list[int] = []
    keepers = [
        Keeper(Chain(None, "us-east-1", assume=role), lambda _, number=number: got.append(number), lambda _: None, pool=pool)
        for number in range(5)
    ]
    for each in keepers:
        each.start()
    for each in keepers:
        assert each.wait_loaded(60)
    with pool._lock:
        first = pool._outages["STS"]._next
    assert first is not None
    first.close()
    for each in [each for each in keepers if each is not first][:3]:
        each.close()
    failing["status"] = 200
    wait(lambda: len(got) == 1)
    for each in keepers:
        each.close()


class Down:
    """Stands for a failure."""


def test_who_tries_and_who_waits() -> None:
    outage: Outage[str] = Outage()
    failure: Any = Down()
    assert outage.admits("a", 0.0)
    outage.failed("a", failure, 0.0, 4.0)
    outage.failed("b", failure, 0.5, 9.0)
    assert (outage.due, outage.park("a"), outage.park("b"), outage.park("c")) == (4.0, True, False, False)
    assert [outage.admits(each, 3.9) for each in "ab"] == [False, False]
    assert [outage.admits(each, 4.0) for each in "ab"] == [True, False]
    outage.begin("a")
    assert not outage.admits("b", 5.0), "a tries"
    outage.failed("a", failure, 5.0, 8.0)
    assert outage.due == 13.0
    assert (outage.sooner("other", 1.0), outage.sooner("b", 1.0), outage.due) == (None, "a", 6.0)
    assert outage.leave("b") is None
    assert outage.leave("a") == "c"
    assert outage.waiting() == ["c"]


def test_an_outage_that_lasts_is_logged_again() -> None:
    pool = Pool(1)
    assert pool.is_news("STS", 0)
    assert not pool.is_news("STS", module.REMINDER - 1)
    assert pool.is_news("STS", module.REMINDER)
    assert not pool.is_news("STS", module.REMINDER + 1)
    assert pool.is_news("IMDS", module.REMINDER + 1)
