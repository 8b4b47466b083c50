"""One sidecar's engine under load, for `bench_fleet` and its test: asks as fast as it is let, and prints what became of it.

python -m tests.bench.fleet_member SETTINGS SECONDS CONCURRENCY
"""

import json
import select
import sys
import time

from sigward import _core


def main() -> None:
    """Prints {"served": …, "refused": …, "failed": …}."""
    settings, seconds, concurrency = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    engine = _core.Engine(settings)
    engine.set_credentials("default", "AKIDTESTS", "a-secret-that-must-not-leak", None, None, "test")
    headers = [(b"x-amz-target", b"DynamoDB_20120810.ListTables"), (b"host", b"dynamodb.us-east-1.amazonaws.com")]
    told = {"served": 0, "refused": 0, "failed": 0}
    logged: list[str] = []
    jobs = {}

    def begin() -> None:
        job = engine.submit(_core.ENTRY_REVERSE, b"POST", b"https", "dynamodb.us-east-1.amazonaws.com", 443, b"/", headers, b"", "client")
        jobs[job.id] = job

    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    end = time.monotonic() + seconds
    for _ in range(concurrency):
        begin()
    while jobs and time.monotonic() < end + 5:
        select.select([engine.fileno()], [], [], 1)
        for event in engine.poll():
            if event[0] == _core.EVENT_LOG:
                logged.append(str(event[3]))
                continue
            if event[0] == _core.EVENT_RESPONSE:
                status = event[3]
                told["served" if status == 200 else "refused" if status == 503 else "failed"] += 1
            elif event[0] == _core.EVENT_FAILED:
                told["failed"] += 1
            else:
                continue
            jobs.pop(event[1], None)
            if time.monotonic() < end:
                begin()
        if time.monotonic() >= end:
            break
    for job in jobs.values():
        job.cancel()
    engine.close()
    sys.stdout.write(json.dumps(told | {"log": logged}) + "\n")


if __name__ == "__main__":
    main()
