"""What `sigward serve` does, as the settings say: plain values, made by `Settings.plan` and taken by `sigward.cli.serving`.

They hold no pydantic: the process that serves need not import it.
"""

from dataclasses import dataclass, field
from pathlib import Path

from sigward.clients import Terms
from sigward.credentials import Chain

DEFAULT_IDENTITY = "default"


@dataclass(frozen=True)
class Web:
    """mitmweb's pages. `port`: 0 takes a free one. `password`: None: a token is made at the start. `flows`: how many are kept.
    `bodies`: bytes of bodies that are kept, all together."""

    host: str
    port: int
    password: str | None = field(repr=False)
    flows: int
    bodies: int
    open_browser: bool


@dataclass(frozen=True)
class Plan:
    """`reverse`: (listen, upstream or None). `body_hold`: bytes. `grace`: seconds. `engine`: `Settings.engine_json`; it holds passwords
    of proxies and stores. `region`: for a program, as it was named. `chains`: by identity. `web`: of `sigward web` alone. `ca_names`:
    what the CA has to vouch for beside AWS's hosts and this one; a route's `host` that a name constraint cannot say stands there as it
    is. `source`: the settings file, None: there is none."""

    source: Path | None
    front: str
    listen: str
    reverse: tuple[tuple[str, str | None], ...]
    transparent: str
    admin: str
    ca_dir: Path
    ca_names: tuple[str, ...]
    ca_key: str
    trust_dir: Path
    threads: int
    addons: tuple[Path, ...]
    grace: float
    log_level: str
    log_format: str
    body_hold: int
    region: str
    engine: str = field(repr=False)
    chains: dict[str, Chain]
    clients: Terms
    web: Web | None = None
