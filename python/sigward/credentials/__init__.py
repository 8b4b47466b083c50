"""Where keys come from: botocore's chain, walked off the request path, and a keeper that publishes immutable snapshots.

What never lives here: signing, and botocore's `RefreshableCredentials` on a request's way (in its mandatory window, with its source
down, it fails every call although the keys are still valid). `sigward.cli` calls; the engine gets the snapshots.
"""

from sigward.credentials.chain import Assume, Chain, Failure, Found, Snapshot
from sigward.credentials.keeper import Keeper, Pool, Watcher
from sigward.credentials.region import Region, resolve_region

__all__ = ["Assume", "Chain", "Failure", "Found", "Keeper", "Pool", "Region", "Snapshot", "Watcher", "resolve_region"]
