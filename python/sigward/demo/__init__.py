"""`sigward demo`: an AWS emulator that verifies signatures, sigward before it, and real programs that cannot sign.

What lives here: the emulator (`emulator`, `emulator_server`), sigward as a child (`gateway`), the clients and
calls. The end-to-end tests use the same parts. What never does: anything that `sigward serve` needs.
`sigward.cli` calls `main` and `throttle`; nothing outside `tests` imports the rest. It needs the extra `sigward[demo]`.
"""

from sigward.demo.show import main
from sigward.demo.throttle import throttle

__all__ = ["main", "throttle"]
