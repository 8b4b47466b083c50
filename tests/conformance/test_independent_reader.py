"""What is decided on is what arrives: the upstream's requests, read again by an independent reader, and the audit log's lines of them."""

import json
import random
from collections.abc import Set
from functools import cache
from pathlib import Path

import pytest

from tests.agreement import USUAL, Comparison, Sent, Source, rule_sets
from tests.conformance.conftest import Start
from tests.conformance.test_access_log import grown
from tests.spellings import Spelt
from tests.support import Answer, Received, Upstream

COUNT = 2000
"""Through each front, under each of the sets of rules in turn."""


@cache
def requests() -> tuple[Source, list[Spelt]]:
    source = Source(random.Random(2000), USUAL, most=40)
    return source, [source.next() for _ in range(COUNT)]


def numbered(number: int) -> Answer:
    """An answer by whose id the line in the audit log is found."""
    return f"HTTP/1.1 200 OK\r\nx-amzn-requestid: id-{number}\r\nx-amz-request-id: id-{number}\r\ncontent-length: 0\r\n\r\n".encode()


def as_decided(received: Received, line: dict[str, str]) -> Sent:
    resource = line.get("resource", "")
    bucket, _, key = resource.partition(":::")[2].partition("/") if resource.startswith("arn:aws:s3:::") else ("", "", "")
    return Sent(
        received.method,
        (received.get("host") or "").partition(":")[0],
        received.target,
        [(name.encode("latin-1"), value.encode("latin-1")) for name, value in received.headers],
        received.body,
        f":{line['operation']}" if "operation" in line else None,
        bucket or None,
        key if bucket else None,
    )


async def logged(path: Path, wanted: Set[str]) -> dict[str, dict[str, str]]:
    """The audit log's lines by the ids of their answers, once all that are wanted are there."""
    count = len(wanted)
    while True:
        lines = [json.loads(line) for line in (await grown(path, count)).splitlines()]
        found = {line["request_id"]: line for line in lines if line.get("request_id") in wanted}
        if found.keys() == wanted:
            return found
        count = len(lines) + 1


@pytest.mark.slow
async def test_what_was_decided_on_is_what_arrives(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, given = requests()
    comparison = Comparison(source)
    sets = list(rule_sets())
    async with Upstream(hosts=tuple({request.host: None for request in given})) as upstream:
        for place, rules in enumerate(sets):
            log = tmp_path / f"{rules}.log"
            routes = rule_sets(connect=f"127.0.0.1:{upstream.port}")[rules]
            proxy = await start(upstream, routes=routes, audit_log=str(log), pace={"defaults": False}, retry={"mode": "off"})
            arrived: dict[str, tuple[Spelt, Received]] = {}
            asked = given[place :: len(sets)]
            for number, request in enumerate(asked):
                upstream.received.clear()
                upstream.answers = [numbered(number)]
                response = await proxy.ask(request.raw())
                if upstream.received:
                    assert len(upstream.received) == 1, upstream.received
                    arrived[f"id-{number}"] = (request, upstream.received[0])
                else:
                    comparison.refused(response.get("x-sigward-error") or str(response.status))
            decided = await logged(log, arrived.keys())
            for found, (request, received) in arrived.items():
                comparison.sent(rules, request, as_decided(received, decided[found]))
    with capsys.disabled():
        print(f"\n{COUNT:,} requests: {comparison.summary()}")
    comparison.check(least=COUNT // 4)
