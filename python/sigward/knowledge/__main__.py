"""`python -m sigward.knowledge [FILE]`: writes the table that the engine ships with; without FILE, that of IAM actions, too."""

import json
import sys
from pathlib import Path

from sigward.knowledge.actions import reverse
from sigward.knowledge.build import build

SHIPPED = Path(__file__).resolve().parents[3] / "rust" / "gateway" / "data" / "knowledge.bin"

if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED
    table = build()
    target.write_bytes(table)
    sys.stdout.write(f"{target}: {len(table):,} bytes\n")
    if len(sys.argv) == 1:
        SHIPPED.with_name("actions.json").write_text(json.dumps(reverse(), indent=1) + "\n")
