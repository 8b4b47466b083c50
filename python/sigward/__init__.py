"""sigward: an HTTPS signing proxy for AWS.

The command line is `sigward.cli`; the engine and the signer are Rust, in `sigward._core`. Nothing heavy is imported here.
"""


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Reading a package's metadata takes longer than all else that is imported here.
    from importlib.metadata import version

    return version("sigward")
