"""Addresses of what lies outside: URLs that may hold secrets, and so may be kept elsewhere."""

import os
from collections.abc import Iterator
from pathlib import Path

from cloud.config import File
from cloud.errors import AddressError
from cloud.toml_file import TomlModel


class AddressTable(TomlModel):
    """What names one URL, or the environment variable or file that holds it."""

    url: str | None = None
    url_env: str | None = None
    url_file: File | None = None

    def address(self) -> str:
        """Return the URL from where it is kept; raise AddressError when it is not there."""
        if self.url_env is not None or self.url_file is not None:
            return secret(self.url_env, self.url_file)
        return self.url or ""

    def named(self) -> list[str]:
        """Return which of the three keys are set."""
        return [key for key in ("url", "url_env", "url_file") if getattr(self, key) is not None]

    def address_faults(self, *, required: bool = True) -> Iterator[tuple[str, str, str]]:
        """Yield what is wrong with the three keys: key, problem, what is allowed; never the URL itself."""
        named = self.named()
        if len(named) > 1 or (required and not named):
            yield "", f"names {' and '.join(named) or 'no URL'}", "name one of url, url_env, url_file"
        if self.url is not None and "://" not in self.url:
            yield "url", "is no URL", "SCHEME://HOST and more"


def secret(env: str | None, file: Path | None) -> str:
    """Return what an environment variable, or a file, holds; raise AddressError when it is not there."""
    if env is not None:
        if env not in os.environ:
            raise AddressError(f"the environment variable {env} is not set")
        return os.environ[env]
    assert file is not None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AddressError(f"{file} cannot be read") from error
