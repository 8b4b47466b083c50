"""This host's clock is wrong: what decides whether tokens and keys have expired, and what STS is asked by, goes by the sources' clocks."""

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from sigward.credentials import Assume, Chain, Failure, Found, Keeper, Snapshot
from sigward.credentials import walk as module
from sigward.credentials.walk import Walk, ticks
from tests.unit.credentials.servers import Ecs, Handler, Imds, Sts, StsHandler, keys, serving
from tests.unit.credentials.test_bounds import cache, tokens
from tests.unit.credentials.test_providers import START, Portal

HOUR = 3600.0
__all__ = ["cache"]


@pytest.fixture(params=[-7, 7])
def behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds that all servers are ahead of this host."""
    ahead = float(request.param * HOUR)
    monkeypatch.setattr(Handler, "date_time_string", lambda _self, _at=None: formatdate(time.time() + ahead, usegmt=True))
    monkeypatch.setattr(StsHandler, "date_time_string", lambda _self, _at=None: formatdate(time.time() + ahead, usegmt=True))
    return ahead


def loaded(chain: Chain, known: float = 0.0) -> tuple[Keeper, list[Snapshot], list[int]]:
    """`known`: seconds ahead that the engine says."""
    published: list[Snapshot] = []
    heard: list[int] = []
    keeper = Keeper(chain, published.append, lambda _: None, hear=heard.append, clock=lambda: time.time() + known)
    keeper.load()
    return keeper, published, heard


@pytest.mark.fault(
    "the host's clock is hours off", holds="an instance's and a container's keys are used until they expire by the source's clock"
)
@pytest.mark.parametrize("kind", [Imds, Ecs])
def test_keys_expire_by_the_clock_of_who_gives_them(monkeypatch: pytest.MonkeyPatch, behind: float, kind: type[Handler]) -> None:
    with serving(kind, keys("one", minutes=60 + behind / 60)) as server:
        if kind is Imds:
            monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
        else:
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{server.url}/keys")
        keeper, published, heard = loaded(Chain(None, "us-east-1"))
    assert (keeper.failure, [each.access_key_id for each in published]) == (None, ["ASIAONE"])
    assert abs(heard[0] - behind) < 5
    assert 40 * 60 < (keeper.pause() or 0) < 50 * 60, "it is renewed a quarter of an hour ahead"


class Strict(StsHandler):
    """Refuses what is signed by a clock that is wrong, as STS does."""

    def do_POST(self) -> None:  # noqa: N802
        stamp = datetime.strptime(self.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        ahead: Any = self.server.ahead  # type: ignore[attr-defined]
        if abs((datetime.now(UTC) + timedelta(seconds=ahead) - stamp).total_seconds()) < 300:
            return super().do_POST()
        self.rfile.read(int(self.headers["content-length"]))
        text = "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>Signature expired</Message></Error></ErrorResponse>"
        self.send_response(403)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
        return None


@pytest.mark.fault("STS refuses what this host's clock signs", holds="the call is signed by STS's clock, and the role's keys are there")
def test_a_role_is_taken_by_sts_s_clock(sts: Sts, behind: float) -> None:
    sts.RequestHandlerClass = Strict
    sts.ahead = behind  # type: ignore[attr-defined]
    outcome = Chain(None, "us-east-1", assume=Assume(role_arn="arn:aws:iam::123456789012:role/r")).load()
    assert isinstance(outcome, Found), outcome
    assert outcome.offset is not None
    assert abs(outcome.offset + ticks() - time.time() - behind) < 5
    assert len(sts.told) == 1, "the second time, it was right"


def test_a_sign_on_expires_by_the_known_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    del tmp_path
    ends = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    tokens(json.dumps({"startUrl": START, "accessToken": "sso-access-token", "expiresAt": ends}))
    with serving(Portal, keys("one")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", server.url)
        assert isinstance(Chain(None, "us-east-1").load(), Failure)
        assert isinstance(Chain(None, "us-east-1").load(lambda: time.time() - 2 * HOUR), Found)


def test_what_a_process_gives_goes_by_the_clock_that_requests_have_learnt(tmp_path: Path) -> None:
    ends = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    (tmp_path / "keys").write_text(json.dumps({"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "s", "Expiration": ends}))
    chain = Chain(None, "us-east-1", assume=Assume(process=f"cat {tmp_path / 'keys'}"))
    keeper, published, _ = loaded(chain)
    assert keeper.failure is not None
    assert [each.access_key_id for each in published] == ["A"], "an endpoint may know the time better"
    keeper, published, heard = loaded(chain, known=-7 * HOUR)
    assert (keeper.failure, len(published), heard) == (None, 1, [])
    assert (keeper.pause() or 0) > 5 * HOUR


def test_a_clock_that_is_set_after_an_answer_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    walk = Walk()
    walk.begin(10.0, lambda: time.time(), [])  # noqa: PLW0108 - what is set below
    real = time.time()
    walk.hear(formatdate(real, usegmt=True))
    assert not walk.surprised()
    monkeypatch.setattr(module.time, "time", lambda: real + 300 * 86_400)
    assert abs(walk.time() - real) < 5
    assert walk.surprised()
    walk.hear(formatdate(real, usegmt=True))
    for wrong in (None, "", "yesterday", "Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 99 Foo 9999 99:99:99 GMT"):
        walk.hear(wrong)
        assert abs(walk.time() - real) < 5
