"""`python -m tests.e2e.s3_matrix`: runs the matrix, says what differs, and ends with 1 if something does that is not expected."""

import argparse
import json
import os
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.s3_matrix.clients import CLIENTS
from tests.e2e.s3_matrix.expected import reason
from tests.e2e.s3_matrix.matrix import CELLS, Compared, Matrix
from tests.e2e.s3_matrix.servers import NAMES, binary, started


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.s3_matrix", description="Compare S3 clients direct and through sigward.")
    parser.add_argument("--server", action="append", choices=NAMES, help="Only this server. Default: all that are built.")
    parser.add_argument("--client", action="append", choices=tuple(CLIENTS), help="Only this client. Default: all that are here.")
    parser.add_argument("--cell", action="append", default=[], metavar="WORD", help="Only cells with this word: native, proxy, chunked, …")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="Clients at the same time.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write every difference there.")
    told = parser.parse_args()
    chosen = [CLIENTS[name] for name in told.client or CLIENTS]
    for missing in filter(None, (client.missing() for client in chosen)):
        print(f"left out: {missing}", file=sys.stderr)
    clients = [client for client in chosen if not client.missing()]
    cells = [cell for cell in CELLS if all(word in str(cell) for word in told.cell)]
    results: list[Compared] = []
    for name in told.server or NAMES:
        if not binary(name).exists():
            print(f"left out: {name} (make build/{name}/bin/{name})", file=sys.stderr)
            continue
        with ExitStack() as stack:
            matrix = Matrix(stack.enter_context(started(name)), stack)
            for compared in matrix.run_all(clients, cells, told.jobs):
                results.append(compared)
                print(f"{name}, {compared.client}, {compared.cell}: {compared.steps} steps, {len(compared.differences)} differ", flush=True)
    return report(results, told.json)


def report(results: list[Compared], file: Path | None) -> int:
    differences = [one for compared in results for one in compared.differences]
    unexpected = [one for one in differences if not reason(one)]
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        told = [{"where": str(one.cell), **vars(one), "cell": None, "reason": reason(one)} for one in differences]
        file.write_text(json.dumps(told, indent=1, ensure_ascii=False))
    for one in unexpected:
        print(one)
    steps, differ = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for compared in results:
        steps[compared.client, compared.server] += compared.steps
        differ[compared.client, compared.server] += len(compared.differences)
    servers = dict.fromkeys(compared.server for compared in results)
    print("\n| client |" + "".join(f" {server} |" for server in servers) + "\n|---|" + "---:|" * len(servers))
    for client in dict.fromkeys(compared.client for compared in results):
        cells = (f" {steps[client, server]:,} ({differ[client, server]} differ) |" for server in servers)
        print(f"| {client} |" + "".join(cells))
    reasons = Counter(reason(one) for one in differences)
    print(f"\n{steps.total():,} comparisons, {len(differences)} differ, {len(unexpected)} of them unexpectedly.")
    for why, count in reasons.most_common():
        print(f"  {count}: {why or 'unexpected'}")
    return 1 if unexpected or not results else 0


if __name__ == "__main__":
    sys.exit(main())
