"""What the log says once, and again the next day: a process runs for years, and what is read of its log is the last week."""

import functools
import time
from collections.abc import Callable

DAY = 86_400


def once_a_day[*Arguments](tell: Callable[[*Arguments], None]) -> Callable[[*Arguments], None]:
    """For each set of arguments, of the last 1,000."""

    @functools.lru_cache(maxsize=1000)
    def told(arguments: tuple[*Arguments], _: int) -> None:
        tell(*arguments)

    def telling(*arguments: *Arguments) -> None:
        told(arguments, int(time.time() // DAY))

    return telling
