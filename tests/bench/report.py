"""Writes the tables of the benchmarks' JSON files into README.md, between its markers.

`python tests/bench/report.py FILE.json …`: {"tables": [{"title", "columns", "rows"}]} each.
"""

import json
import platform
import sys
from pathlib import Path

from tests.bench.harness import ROOT, Table

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def machine() -> str:
    """What they were measured on."""
    models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    machine = f"{len(models)} CPUs ({models[0] if models else platform.machine()})"
    return f"Measured by `make bench`, each table in one interleaved run, on {machine}, Python {platform.python_version()}."


def main(files: list[Path]) -> None:
    """Replaces what stands between the markers."""
    tables = [Table(**told) for file in files for told in json.loads(file.read_text())["tables"]]
    readme = ROOT / "README.md"
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"README.md has no place for the tables: it needs one line {BEGIN} and, below, one line {END}")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    readme.write_text(head + BEGIN + "\n" + "\n".join([machine() + "\n", *map(str, tables)]) + END + tail)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
