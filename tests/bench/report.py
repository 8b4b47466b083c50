"""Writes the tables of the benchmarks' JSON files between the markers: all into docs/benchmarks.md, those that say so into README.md.

`python tests/bench/report.py FILE.json …`: {"tables": [{"title", "columns", "rows", "readme"}]} each.
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


def write(readme: Path, tables: list[Table]) -> None:
    """Replaces what stands between the markers."""
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"{readme} has no place for the tables: it needs one line {BEGIN} and, below, one line {END}")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    readme.write_text(head + BEGIN + "\n" + "\n".join([machine() + "\n", *map(str, tables)]) + END + tail)


def main(files: list[Path]) -> None:
    """Into the pages; the signer's into its crate's, too."""
    tables = {file: [Table(**told) for told in json.loads(file.read_text())["tables"]] for file in files}
    every = [table for found in tables.values() for table in found]
    write(ROOT / "README.md", [table for table in every if table.readme])
    write(ROOT / "docs" / "benchmarks.md", every)
    for file in files:
        if file.stem == "signing":
            write(ROOT / "rust" / "sigv4" / "README.md", tables[file])


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
