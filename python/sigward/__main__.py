"""`python -m sigward`."""

import sys

from sigward.cli import main

sys.exit(main())
