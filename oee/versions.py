"""Which version this is, and of what."""

import platform
from importlib import metadata
from typing import Final

_DISTRIBUTIONS: Final = ("oee-gateway", "oee-gateway-edge")


def described() -> str:
    """Return the distribution, its version and the Python that runs it, on one line."""
    for name in _DISTRIBUTIONS:
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return f"{name} {found} (Python {platform.python_version()})"
    return f"oee-gateway, not installed (Python {platform.python_version()})"
