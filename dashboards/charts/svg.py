"""SVG elements as safe markup: every attribute and text is escaped here and nowhere else."""

from collections.abc import Iterable
from typing import Final

from markupsafe import Markup, escape

Attribute = str | float | None
_CLOSED: Final = frozenset({"rect", "line", "path", "circle", "use", "polyline", "polygon"})


def element(tag: str, /, *children: Markup | str, **attributes: Attribute) -> Markup:
    """Build an element; `class_` is class, `_` in a name is `-`, None leaves an attribute out."""
    written = "".join(
        f' {_name(name)}="{_value(value)}"' for name, value in attributes.items() if value is not None
    )
    if tag in _CLOSED and not children:
        return Markup(f"<{tag}{written}/>")  # noqa: S704  # tag and names are ours, values escaped above
    inner = "".join(str(escape(child)) for child in children)
    return Markup(f"<{tag}{written}>{inner}</{tag}>")  # noqa: S704  # children escaped above


def group(children: Iterable[Markup], **attributes: Attribute) -> Markup:
    """Build a `g` of the children."""
    return element("g", *children, **attributes)


def text(content: str, x: str | float, y: float, **attributes: Attribute) -> Markup:
    """Build a text at a point."""
    return element("text", content, x=x, y=y, **attributes)


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return str(escape(value))
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"
