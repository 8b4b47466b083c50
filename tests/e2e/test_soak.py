"""`make soak` in short: 300 days in 20 s, and everything around sigward comes and goes."""

import pytest

from tests.bench import soak
from tests.needs import needs


@pytest.mark.long
@pytest.mark.fault(
    "300 days in which upstreams, Redis and settings change and credentials live for 60 s",
    holds="each call that an upstream answered succeeds, nothing is executed twice or missing in the audit log, no descriptor is left",
)
@needs("redis-server")
@pytest.mark.parametrize("front", ["mitmproxy", "native"])
def test_300_days_in_20_seconds(front: str) -> None:
    world = soak.soak(front, 20)
    assert soak.faults(world) == [], world.failed
    assert world.reloads >= 3
