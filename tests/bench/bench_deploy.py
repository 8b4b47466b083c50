"""The sidecar's image: its size, from the container's start to readiness, and what it holds idle.

Run it with `make bench-deploy`, as root, where `make deploy-test` runs. Nothing here is asserted: figures of one machine at one time.
"""

import contextlib
import json
import statistics
import time
from pathlib import Path
from typing import Any

from docker.models.containers import Container

from tests.deploy import base
from tests.deploy.conftest import DOCKERFILE, ROOT
from tests.deploy.engine import Workshop, build, compressed_size, running_engine, wait_output

RUNS = 9
KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
GOALS = {"size": 120.0, "start": 1.0, "resident": 60.0}


def main() -> None:
    """Prints the figures, beside their goals."""
    with running_engine() as engine:
        debian = base.debian(engine)
        image = build(DOCKERFILE, ROOT, "sigward", BASE=debian, BUILDER=debian, WHEELS="dist")
        with contextlib.closing(Workshop(engine)) as workshop:
            starts = [start(workshop, image) for _ in range(RUNS)]
            empty = [start(workshop, debian, ["sh", "-c", "echo listening; sleep infinity"]) for _ in range(RUNS)]
        told: dict[str, Any] = {
            "compressed size, MB": compressed_size(engine, image) / 1e6,
            "container start to ready, s (median)": statistics.median(seconds for seconds, _ in starts),
            "of that, the engine's own (an empty container), s": statistics.median(seconds for seconds, _ in empty),
            "resident, idle, MiB (median)": statistics.median(mebibytes for _, mebibytes in starts),
        }
    for name, value in told.items():
        goal = next((goal for word, goal in GOALS.items() if word in name and "of that" not in name), None)
        print(f"{name:<52} {value:8.2f}" + (f"   goal ≤ {goal:g}" if goal else ""))
    place = ROOT / "build" / "bench"
    place.mkdir(parents=True, exist_ok=True)
    (place / "deploy.json").write_text(json.dumps(told, indent=1))


def start(workshop: Workshop, image: str, command: list[str] | None = None) -> tuple[float, float]:
    """(seconds from the container's start to the line that it listens, MiB that its first process holds then)."""
    container: Container = workshop.client.containers.create(
        image, command, environment=KEYS, network_mode="none", read_only=True, cap_drop=["ALL"], labels=workshop.labels()
    )
    began = time.perf_counter()
    container.start()
    wait_output(container, "listening")
    took = time.perf_counter() - began
    container.reload()
    pid = container.attrs["State"]["Pid"]
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    container.remove(force=True, v=True)
    return took, int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
