"""OpenStack Swift with its S3 interface, all in one process: proxy, account, container and object server.

Run with the system's Python, for which Debian packages Swift (`python3-swift`):
`python3 swift_server.py FOLDER ACCOUNT USER SECRET`. Says `listening PORT`, serves until its standard input ends. The access
key is `ACCOUNT:USER`.
"""

import os
import sys
import threading
from pathlib import Path
from typing import Any

import eventlet

eventlet.monkey_patch(thread=False)

import eventlet.wsgi  # noqa: E402
from swift.common import utils  # type: ignore[import-not-found]  # noqa: E402
from swift.common.ring import RingBuilder  # type: ignore[import-not-found]  # noqa: E402
from swift.common.storage_policy import reload_storage_policies  # type: ignore[import-not-found]  # noqa: E402
from swift.common.wsgi import loadapp  # type: ignore[import-not-found]  # noqa: E402

PROXY = """
[DEFAULT]
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors s3api tempauth bulk slo proxy-server
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {secret} .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
"""

STORE = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
disable_fallocate = true
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""


class Cache:
    """What memcached would be."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def get(self, key: str, raise_on_error: bool = False) -> Any:
        return self.kept.get(key)

    def set(self, key: str, value: Any, **_: Any) -> None:
        self.kept[key] = value

    def delete(self, key: str, **_: Any) -> None:
        self.kept.pop(key, None)


def with_cache(app: Any) -> Any:
    """The middleware that Swift's tokens and container lookups want."""
    cache = Cache()

    def serve(environment: dict[str, Any], start: Any) -> Any:
        environment["swift.cache"] = cache
        return app(environment, start)

    return serve


def main(folder: Path, account: str, user: str, secret: str) -> None:
    (folder / "devices" / "d1").mkdir(parents=True)
    conf = folder / "swift.conf"
    conf.write_text("[swift-hash]\nswift_hash_path_suffix = tests\n[storage-policy:0]\nname = only\ndefault = yes\n")
    utils.SWIFT_CONF_FILE = str(conf)
    utils.validate_hash_conf()
    reload_storage_policies()
    sockets = {kind: eventlet.listen(("127.0.0.1", 0)) for kind in ("account", "container", "object", "proxy")}
    for kind in ("account", "container", "object"):
        ring = RingBuilder(1, 1, 1)
        port = sockets[kind].getsockname()[1]
        ring.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1, "ip": "127.0.0.1", "port": port, "device": "d1"})
        ring.rebalance()
        ring.get_ring().save(str(folder / f"{kind}.ring.gz"))
        (folder / f"{kind}.conf").write_text(STORE.format(folder=folder, kind=kind))
    (folder / "proxy.conf").write_text(PROXY.format(folder=folder, account=account, user=user, secret=secret))
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 (the log's sink for as long as it serves)
        for kind, socket in sockets.items():
            app = loadapp(str(folder / f"{kind}.conf"))
            eventlet.spawn(eventlet.wsgi.server, socket, with_cache(app) if kind == "proxy" else app, log=nowhere, debug=False)
        sys.stdout.write(f"listening {sockets['proxy'].getsockname()[1]}\n")
        sys.stdout.flush()
        ended = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
        while not ended.is_set():
            eventlet.sleep(0.2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:5])
