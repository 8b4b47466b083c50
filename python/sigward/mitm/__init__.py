"""The default front: mitmproxy keeps the client half, sigward's engine replaces its upstream half.

What lives here: the addon, the master that carries it, the bridge to the engine, and `internals`, the only file that touches
mitmproxy's private classes. What never does: decisions about requests (they are Rust's), settings, credentials.
`sigward.cli` calls `Front`; nothing here calls upward.
"""

from sigward.mitm.front import Front

__all__ = ["Front"]
