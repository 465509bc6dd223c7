"""Templates: Jinja2 with every value escaped, and the few words that all of them may use."""

from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dashboards import words
from dashboards.web.assets import Assets
from dashboards.web.links import link

NAVIGATION: Final = (("board", "/", "Board"),)
"""Page, path and word of each page, in the order of their use."""


def environment(assets: Assets, base: str = "") -> Environment:
    """Return the templates' environment.

    base: the path under which a reverse proxy serves the pages, such as `/oee`; no slash at its end
    """
    jinja = Environment(
        loader=PackageLoader("dashboards.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    jinja.globals |= {
        "words": words,
        "LOOKS": words.LOOKS,
        "NAVIGATION": NAVIGATION,
        "base": base,
        "static": lambda name: f"{base}/static/{assets.path(name)}",
        "link": lambda path, **query: link(base + path, **query),
        "icon": icon,
    }
    return jinja


def icon(name: str, label: str | None = None) -> Markup:
    """Return a drawing of the sprite; without a label it is hidden from screen readers."""
    described = (
        Markup(' role="img" aria-label="{}"').format(label) if label else Markup(' aria-hidden="true"')
    )
    return Markup('<svg class="icon"{}><use href="#i-{}"/></svg>').format(described, name)


def render(jinja: Environment, template: str, **context: Any) -> str:
    """Render a template to text."""
    return jinja.get_template(template).render(context)
