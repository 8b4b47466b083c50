"""The keeper, driven by a clock of the test's own: no test waits for time to pass."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from sigward.credentials import Chain, Failure, Found, Keeper, Snapshot
from sigward.credentials.chain import SKIPPED
from sigward.credentials.keeper import ADVISORY, EXTENSION, FIRST_RETRY, JITTER, LAST_RETRY, URGENT, URGENT_RETRY

START = 1_000_000.0
DOWN = Failure((("env", "not set"), ("iam-role", "no answer")))


def keys(name: str, lifetime: float | None = 3600.0, at: float = START, provider: str = "container-role") -> Found:
    return Found(Snapshot(name, "the-secret", "the-token", None if lifetime is None else at + lifetime, provider), ())


class Source:
    """A chain that gives what the test says, and counts."""

    def __init__(self, *outcomes: Found | Failure) -> None:
        self.outcomes = list(outcomes)
        self.loads = 0
        self.meanwhile: Callable[[], None] = lambda: None

    def load(self) -> Found | Failure:
        self.loads += 1
        self.meanwhile()
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]


class Bench:
    """A keeper with its surroundings: what it published, what it waits for, what time it is."""

    def __init__(self, *outcomes: Found | Failure) -> None:
        self.source = Source(*outcomes)
        self.published: list[str] = []
        self.failures: list[tuple[tuple[str, str], ...]] = []
        self.now = START
        self.waits: list[float | None] = []
        self.idle = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.keeper = Keeper(
            cast(Chain, self.source),
            lambda snapshot: self.published.append(snapshot.access_key_id),
            self.failures.append,
            clock=lambda: self.now,
            wait=self.wait,
        )

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        """Stands for `Event.wait`: tells the test, and returns when the test or the event says so."""
        self.waits.append(seconds)
        self.idle.release()
        while not event.is_set() and not self.go.acquire(timeout=0.01):
            pass
        return event.is_set()

    def until_idle(self) -> float | None:
        """Waits for the keeper to wait; gives how long it means to."""
        assert self.idle.acquire(timeout=10), "the keeper does not come to rest"
        return self.waits[-1]

    def pass_time(self) -> float | None:
        """The time it waits for passes."""
        self.now += self.waits[-1] or 0.0
        self.go.release()
        return self.until_idle()


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def starts(*outcomes: Found | Failure) -> Bench:
        bench = Bench(*outcomes)
        made.append(bench)
        bench.keeper.start()
        return bench

    yield starts
    for bench in made:
        bench.keeper.close()
        assert bench.keeper._pool.join(10), "close() does not end it"


def test_loads_at_the_start(make: Any) -> None:
    bench = make(keys("ONE"))
    bench.until_idle()
    assert bench.published == ["ONE"]
    assert bench.keeper.wait_loaded(0)


def test_refreshes_ahead_of_expiry_with_jitter(make: Any) -> None:
    bench = make(keys("ONE"), keys("TWO", at=START + 2700))
    pause = bench.until_idle()
    assert 3600 - ADVISORY - JITTER <= pause <= 3600 - ADVISORY
    bench.pass_time()
    assert bench.published == ["ONE", "TWO"]


def test_a_fleet_does_not_refresh_at_once(make: Any) -> None:
    assert len({make(keys("ONE")).until_idle() for _ in range(8)}) > 1


def test_keys_without_an_end_are_not_loaded_again_unasked(make: Any) -> None:
    assert make(keys("ONE", None)).until_idle() is None


def test_keys_that_live_shorter_than_the_window_are_not_loaded_in_a_loop(make: Any) -> None:
    assert make(keys("ONE", 60.0)).until_idle() >= 10


def test_old_keys_serve_while_refreshing_fails(make: Any) -> None:
    bench = make(keys("ONE"), DOWN)
    bench.until_idle()
    bench.pass_time()
    assert bench.published == ["ONE"], "nothing takes their place"
    assert bench.keeper.snapshot.access_key_id == "ONE"
    assert bench.failures == [DOWN.for_clients()]


def test_clients_learn_the_kind_of_failure_and_the_log_its_text(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    reasons = (("env", SKIPPED["env"]), ("custom-process", "the vault at 10.0.0.1 says: sealed"))
    bench = make(Failure(reasons, kind="the command failed"))
    bench.until_idle()
    assert bench.failures == [(reasons[0], ("custom-process", "the command failed"))]
    assert "the vault at 10.0.0.1 says: sealed" in caplog.text


@pytest.mark.fault("a source of credentials that is away for ten minutes", holds="not noticed: keys are refreshed early enough")
def test_an_outage_of_ten_minutes_is_not_noticed(make: Any) -> None:
    """The source is away from the first renewal on, and comes back ten minutes later: the keys are valid all the while."""
    bench = make(keys("ONE"))
    bench.until_idle()
    bench.source.outcomes = [DOWN]
    bench.pass_time()
    began, tries, pauses = bench.now, 1, set()
    while bench.now < began + 600:
        assert bench.keeper.snapshot.expires_at > bench.now
        pauses.add(round(bench.waits[-1], 3))
        bench.pass_time()
        tries += 1
    assert 10 <= tries <= 6 + 360 / (LAST_RETRY / 2) + 300 / (URGENT_RETRY / 2), "bounded, and not given up"
    assert len(pauses) > tries / 2, "jittered"
    bench.source.outcomes = [keys("TWO", at=bench.now)]
    bench.pass_time()
    assert bench.published == ["ONE", "TWO"]
    assert bench.keeper.snapshot.expires_at > bench.now


def test_from_ten_minutes_on_it_is_urgent(make: Any) -> None:
    bench = make(keys("ONE"), DOWN)
    bench.until_idle()
    while (left := bench.keeper.snapshot.expires_at - bench.now) > 0:
        pause = bench.pass_time()
        if bench.keeper.snapshot.expires_at - bench.now <= URGENT:
            assert pause <= URGENT_RETRY, left
    assert bench.published == ["ONE"], "what has expired is not used on"


def test_an_instances_last_keys_are_used_on_while_metadata_is_away(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    bench = make(keys("ONE", provider="iam-role"), DOWN)
    bench.until_idle()
    for _ in range(3):
        before = bench.keeper.snapshot.expires_at
        while bench.keeper.snapshot.expires_at == before:
            bench.pass_time()
        assert bench.now < before, "before they run out"
        assert EXTENSION / 2 <= bench.keeper.snapshot.expires_at - bench.now <= EXTENSION
    assert bench.published == ["ONE"] * 4
    assert "the last ones are used on" in caplog.text


def test_a_session_that_only_a_person_can_renew_is_announced(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    bench = make(keys("ONE", provider="mfa-session"))
    bench.until_idle()
    bench.pass_time()
    assert "the session from mfa-session expires in 1" in caplog.text
    assert "sigward login" in caplog.text


@pytest.mark.fault("a source of credentials that keeps failing", holds="it is asked ever more rarely")
def test_failures_back_off_and_end(make: Any) -> None:
    bench = make(*[DOWN] * 9, keys("ONE"))
    pauses = [bench.until_idle(), *(bench.pass_time() for _ in range(8))]
    assert all(FIRST_RETRY / 2 <= pause <= LAST_RETRY for pause in pauses)
    assert pauses[-1] >= LAST_RETRY / 2
    bench.pass_time()
    assert bench.published == ["ONE"]
    assert bench.keeper.failure is None


def test_a_request_wakes_it(make: Any) -> None:
    bench = make(keys("ONE", None), keys("TWO", None))
    bench.until_idle()
    bench.keeper.request_refresh()
    bench.until_idle()
    assert bench.published == ["ONE", "TWO"]


def test_requests_during_a_load_are_answered_by_it(make: Any) -> None:
    bench = Bench(keys("ONE", None), keys("TWO", None))
    bench.source.meanwhile = bench.keeper.request_refresh
    bench.keeper.start()
    bench.until_idle()
    assert bench.waits == [None]
    assert bench.source.loads == 1
    bench.source.meanwhile = lambda: None
    bench.keeper.close()


def test_a_request_right_after_publishing_is_not_lost() -> None:
    bench = Bench(keys("ONE", None), keys("TWO", None))
    publish = bench.keeper._publish

    def publish_and_ask(snapshot: Snapshot) -> None:
        publish(snapshot)
        if snapshot.access_key_id == "ONE":
            bench.keeper.request_refresh()

    bench.keeper._publish = publish_and_ask
    bench.keeper.start()
    bench.until_idle()
    assert bench.published == ["ONE", "TWO"]
    bench.keeper.close()


def test_one_load_at_a_time(make: Any) -> None:
    running, most = 0, 0
    bench = Bench(keys("ONE", None))

    def meanwhile() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        bench.keeper.request_refresh()
        running -= 1

    bench.source.meanwhile = meanwhile
    bench.keeper.start()
    bench.until_idle()
    for _ in range(5):
        bench.keeper.request_refresh()
        bench.until_idle()
    assert most == 1
    bench.keeper.close()


def test_keys_that_have_expired_already_are_a_failure(make: Any) -> None:
    bench = make(keys("OLD", -5.0))
    bench.until_idle()
    assert bench.published == []
    assert "expired" in bench.failures[0][-1][1]


def test_keys_that_the_engine_refuses_are_a_failure(make: Any) -> None:
    def refuse(snapshot: Snapshot) -> None:
        raise ValueError("the access key holds a line break")

    bench = Bench(keys("BAD", None))
    bench.keeper._publish = refuse
    bench.keeper.start()
    assert bench.until_idle() is not None, "it tries again"
    assert bench.keeper.snapshot is None
    assert "line break" in bench.keeper.failure.cause[1]
    assert bench.failures[0][-1] == ("container-role", "its keys cannot be used")
    bench.keeper.close()


def test_no_secret_in_the_log(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    make(keys("ONE"), DOWN).until_idle()
    assert "the-secret" not in caplog.text
    assert "the-token" not in caplog.text
    assert "the-secret" not in repr(keys("ONE"))
