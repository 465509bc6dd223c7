"""Templates: Jinja2 with every value escaped, and the few words that all of them may use."""

from typing import Any, Final

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from dashboards import selection, words
from dashboards.links import Place, link
from dashboards.reports import model
from dashboards.web.assets import Assets

NAVIGATION: Final = (
    ("board", "/", "Board"),
    ("timeline", "/timeline", "Timeline"),
    ("stops", "/stops", "Stops"),
    ("losses", "/losses", "Losses"),
    ("hourly", "/hourly", "Hourly"),
    ("shifts", "/shifts", "Shifts"),
    ("trends", "/trends", "Trends"),
    ("alerts", "/alerts", "Alerts"),
    ("connections", "/connections", "Connections"),
    ("reports", "/reports", "Reports"),
)
"""Page, path and word of each page, in the order of their use."""


def environment(assets: Assets, base: str = "") -> Environment:
    """Return the templates' environment.

    base: the path under which a reverse proxy serves the pages, such as `/oee`; no slash at its end
    """
    jinja = Environment(
        loader=ChoiceLoader(
            [PackageLoader("dashboards.web", "templates"), PackageLoader("dashboards.reports", "templates")]
        ),
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
        "handed_on": selection.handed_on,
        "base": base,
        "static": lambda name: f"{base}/static/{assets.path(name)}",
        "link": lambda path, **query: link(base + path, **query),
        "icon": icon,
    }
    jinja.filters |= {
        "instant": model.instant,
        "ratio": model.ratio,
        "has_records": model.has_records,
        "standing": model.standing,
        "code_words": code_words,
        "child_name": model.name_of,
        "child_place": lambda row: Place(model.place_of(row)),
        "place_link": lambda place, selection, root: selection.to(root + "/place", at=str(place)),
        "drill_link": lambda place, selection, path: selection.to(path, at=str(place)),
        "shift_name": lambda row: f"{words.iso_day(row['production_date'])} · shift {row['shift']}",
        "shift_link": lambda row, selection, root: selection.to(
            root + "/place", shift=f"{row['production_date']}/{row['shift']}"
        ),
        "day_name": lambda row: words.iso_day(row["production_date"]),
    }
    return jinja


def icon(name: str, label: str | None = None) -> Markup:
    """Return a drawing of the sprite; without a label it is hidden from screen readers."""
    described = (
        Markup(' role="img" aria-label="{}"').format(label) if label else Markup(' aria-hidden="true"')
    )
    return Markup('<svg class="icon"{}><use href="#i-{}"/></svg>').format(described, name)


def code_words(text: str) -> Markup:
    """Return a text with what stands in backquotes as code."""
    parts = str(escape(text)).split("`")
    return Markup("".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts)))  # noqa: S704  # escaped


def render(jinja: Environment, template: str, **context: Any) -> str:
    """Render a template to text."""
    return jinja.get_template(template).render(context)
