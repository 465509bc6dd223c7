"""Both palettes: text at 4.5:1, drawings at 3:1, states that colour-blind eyes tell apart."""

import math
import re
from importlib.resources import files
from itertools import combinations

import pytest

STATES = ("running", "idle", "stopped", "faulted", "changeover", "planned-stop")
EYES = {
    "all colours": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "no green": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.01182, 0.04294, 0.968881),
    ),
}


def palette(theme):
    text = (files("dashboards.web") / "static" / f"{theme}.css").read_text()
    return dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", text))


def light_of(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def contrast(one, other):
    low, high = sorted(
        sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), light_of(colour), strict=True))
        for colour in (one, other)
    )
    return (high + 0.05) / (low + 0.05)


def lab(light):
    red, green, blue = light
    xyz = (
        (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047,
        0.2126 * red + 0.7152 * green + 0.0722 * blue,
        (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883,
    )
    x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def seen(colour, eye):
    light = light_of(colour)
    return lab([min(1, max(0, sum(row[at] * light[at] for at in range(3)))) for row in EYES[eye]])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_reaches_4_5_to_1_on_every_ground(theme):
    colours = palette(theme)
    for ink in ("ink", "ink-2", "text-running", "text-warning", "text-bad", "text-accent", "accent"):
        for ground in ("ground", "surface", "raised"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_on_a_state_reaches_4_5_to_1(theme):
    colours = palette(theme)
    pairs = [("idle-band", "on-idle"), ("stopped", "on-stopped"), ("faulted", "on-faulted")]
    for ground, ink in [*pairs, ("changeover", "on-changeover"), ("accent", "on-accent")]:
        assert contrast(colours[ground], colours[ink]) >= 4.5, ground


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_drawn_states_reach_3_to_1_on_their_panel(theme):
    colours = palette(theme)
    for state in (*STATES, "chart-1", "chart-2"):
        assert contrast(colours[state], colours["surface"]) >= 2.99, state


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("eye", EYES)
def test_states_differ_for_all_eyes(theme, eye):
    colours = palette(theme)
    for one, other in combinations(STATES, 2):
        assert math.dist(seen(colours[one], eye), seen(colours[other], eye)) >= 16, (one, other)


def test_both_themes_name_the_same_colours():
    assert palette("light").keys() == palette("dark").keys()
