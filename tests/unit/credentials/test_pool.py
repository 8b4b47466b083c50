"""Many identities at once: what is shared, and what one that hangs does to the others."""

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import botocore.loaders
import pytest

from sigward.credentials import Assume, Chain, Failure, Found, Keeper, Pool, Snapshot, ini
from sigward.credentials import files as shared
from tests.unit.credentials.servers import Sts

MANY = 1000


class Counted:
    """Stands for a function, and counts its calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: object, name: str) -> None:
        self.calls: list[tuple[object, ...]] = []
        real = getattr(place, name)

        def called(*given: object, **more: object) -> object:
            self.calls.append(given)
            return real(*given, **more)

        monkeypatch.setattr(place, name, called)


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    with made._lock:
        kept = list(made._valid)
    for keeper in kept:
        keeper.close()


def run(pool: Pool, chains: list[Chain]) -> tuple[dict[int, str], list[Keeper]]:
    """Loads all; which key each has got."""
    got: dict[int, str] = {}

    def publish_as(number: int) -> Keeper:
        def publish(snapshot: Snapshot) -> None:
            got[number] = snapshot.access_key_id

        return Keeper(chains[number], publish, lambda _: None, pool=pool)

    keepers = [publish_as(number) for number in range(len(chains))]
    for keeper in keepers:
        keeper.start()
    for keeper in keepers:
        assert keeper.wait_loaded(60)
    return got, keepers


def profiles(number: int) -> None:
    """A shared credentials file with so many."""
    text = "".join(f"[p{each}]\naws_access_key_id = AKID{each}\naws_secret_access_key = s\n" for each in range(number))
    file = Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"])
    file.write_text(text)
    # As a file is that was not written this moment.
    os.utime(file, (1e9, 1e9))


def test_a_thousand_profiles_take_one_parse_and_no_session(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles(MANY)
    parses = Counted(monkeypatch, ini, "read")
    sessions = Counted(monkeypatch, Chain, "session")
    got, _ = run(pool, [Chain(f"p{each}", "us-east-1") for each in range(MANY)])
    assert got == {each: f"AKID{each}" for each in range(MANY)}
    assert not sessions.calls
    assert len([call for call in parses.calls if call[0] == os.environ["AWS_SHARED_CREDENTIALS_FILE"]]) == 1
    assert len(pool.threads) <= pool._most


def test_roles_by_the_hundred_read_each_model_once(pool: Pool, sts: Sts, monkeypatch: pytest.MonkeyPatch) -> None:
    del sts
    profiles(MANY)
    gc.collect()
    models = Counted(monkeypatch, botocore.loaders.JSONFileLoader, "load_file")
    role = Assume(role_arn="arn:aws:iam::123456789012:role/tests")
    got, _ = run(pool, [Chain(f"p{each}", "us-east-1", assume=role) for each in range(100)])
    assert len(got) == 100
    once: dict[object, int] = {}
    for call in models.calls:
        once[call[1]] = once.get(call[1], 0) + 1
    assert max(once.values()) <= pool._most, "several may begin at the same moment"


def test_what_the_loads_shared_goes_when_all_is_done(pool: Pool) -> None:
    profiles(10)
    run(pool, [Chain(f"p{each}", "us-east-1") for each in range(10)])
    for _ in range(1000):
        with pool._lock:
            if not pool._loading and not shared._kept:
                break
        threading.Event().wait(0.01)
    assert not shared._kept, "secrets of the files"
    assert not shared._merged


def test_sources_that_hang_hold_up_nobody_else() -> None:
    """As many as there are threads but one; the other identities are loaded meanwhile."""
    pool, hang = Pool(4), threading.Event()

    class Hanging:
        def load(self, _now: object = None) -> Failure:
            hang.wait(60)
            return Failure((("custom-process", "it hung"),))

    class Quick:
        def load(self, _now: object = None) -> Found:
            return Found(Snapshot("AKID", "s", None, None, "env"), ())

    slow = [Keeper(cast(Chain, Hanging()), lambda _: None, lambda _: None, pool=pool) for _ in range(3)]
    fast = [Keeper(cast(Chain, Quick()), lambda _: None, lambda _: None, pool=pool) for _ in range(50)]
    try:
        for keeper in (*slow, *fast):
            keeper.start()
        for keeper in fast:
            assert keeper.wait_loaded(10)
        assert not any(keeper.wait_loaded(0) for keeper in slow)
        assert len(pool.threads) <= 4
    finally:
        hang.set()
        for keeper in (*slow, *fast):
            keeper.close()


def test_a_keeper_that_was_asked_while_it_loaded_is_not_forgotten() -> None:
    """Asked after it has published, before the pool has it back."""
    pool = Pool(2)
    loads = threading.Semaphore(0)

    class Source:
        def load(self, _now: object = None) -> Found:
            loads.release()
            return Found(Snapshot("AKID", "s", None, None, "env"), ())

    asked: list[bool] = []

    def publish(_: Snapshot) -> None:
        if not asked:
            asked.append(True)
            keeper.request_refresh()

    keeper = Keeper(cast(Chain, Source()), publish, lambda _: None, pool=pool)
    keeper.start()
    assert loads.acquire(timeout=10)
    assert loads.acquire(timeout=10)
    keeper.close()


def test_a_file_that_changes_within_a_moment_is_read_again() -> None:
    file = Path(os.environ["AWS_SHARED_CREDENTIALS_FILE"])
    for number in range(50):
        file.write_text(f"[default]\naws_access_key_id = AKID{number:02}\naws_secret_access_key = s\n")
        found = Chain(None, "us-east-1").load()
        assert isinstance(found, Found)
        assert found.snapshot.access_key_id == f"AKID{number:02}"
