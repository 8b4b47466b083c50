"""sigward: an HTTPS signing proxy for AWS.

The command line is `sigward.cli`; the engine and the signer are Rust, in `sigward._core`. Nothing heavy is imported here.
"""

from importlib.metadata import version

__version__ = version("sigward")
