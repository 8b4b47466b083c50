"""How many made-up requests tests compare with what others make of them: few at each run, `make readers` many times as many."""

import os

MANY = int(os.environ.get("TEST_SAMPLES", "1"))
EACH = 5_000 * MANY
"""Requests signed by botocore, in each way."""
SEARCHED = 1_000 * MANY
"""Examples that hypothesis looks at, in each style."""
