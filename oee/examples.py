"""The example configuration files that ship with the command."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from oee.errors import CommandError, UsageError

_SHIPPED: Final = Path(__file__).with_name("config")
_SUFFIXES: Final = frozenset({".toml", ".service"})


def folder() -> Path:
    """Return where the files are: inside the installed package, or at the root of a clone."""
    for place in (_SHIPPED, Path(__file__).parent.parent / "config"):
        if place.is_dir():
            return place
    raise CommandError("the example files are missing from this installation")


def paths() -> Iterator[Path]:
    """Yield every example file, those of subfolders last."""
    found = (path for path in folder().rglob("*") if path.suffix in _SUFFIXES)
    yield from sorted(found, key=lambda path: (len(path.parts), path))


def text(name: str) -> str:
    """Return one example; `gateway` is short for `gateway.example.toml`."""
    known = list(paths())
    for path in known:
        if name in {path.name, path.name.split(".", 1)[0]}:
            return path.read_text()
    raise UsageError(f"no example is called {name!r}; there are: {', '.join(path.name for path in known)}")


def write(into: Path, *, replace: bool = False) -> list[Path]:
    """Copy every example into a folder, `gateway.example.toml` as `gateway.toml`; return the new files.

    A file that exists stays as it is unless replace; raise CommandError when nothing was left to write.
    """
    into.mkdir(parents=True, exist_ok=True)
    written = []
    for path in paths():
        target = into / path.relative_to(folder()).with_name(path.name.replace(".example", ""))
        if replace or not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text())
            written.append(target)
    if not written:
        raise CommandError(f"{into} has all of them already; --replace overwrites them")
    return written
