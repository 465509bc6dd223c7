"""alerts.toml: what is asked of it, and who is told of what."""

import re
import tomllib
from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cloud.alerts.config import AlertsConfig, ChannelTable, EscalationTable, load, unknown_names
from cloud.alerts.rule_tables import RuleTable
from cloud.errors import ConfigError, NotificationError
from contract.delivery import Alert
from tests.support.plants import plant

EXAMPLE = Path(__file__).parents[4] / "config" / "alerts.example.toml"
FRIDAY = 1_625_184_000  # 2021-07-02T00:00Z
HOUR = 3600


def said(**changes: Any) -> Alert:
    fields: dict[str, Any] = {
        "id": "1",
        "event": "raised",
        "rule": "idle",
        "site": "berlin",
        "area": "packaging",
        "line": "line-1",
        "machine": "filler-1",
        "epochtime": FRIDAY,
        "since_epochtime": FRIDAY - 60,
        "message": "stands",
    }
    return Alert(**(fields | changes))


def channel(**changes: Any) -> ChannelTable:
    return ChannelTable.model_validate({"name": "c", "kind": "apprise", "url": "json://127.0.0.1"} | changes)


def test_the_example_says_the_defaults() -> None:
    text = EXAMPLE.read_text()
    first, second = load(EXAMPLE).channel
    assert (first.name, second.kind) == ("technicians", "sns")
    for table, heading in (
        (EscalationTable, "[escalation]"),
        (RuleTable, "[[rule]]"),
        (ChannelTable, "[[channel]]"),
    ):
        fields: dict[str, Any] = table.model_fields
        for name, field in fields.items():
            if not field.is_required():
                assert f"\n# {name} =" in text or f"\n{name} =" in text, name
        part = re.split(r"\n(?=\[)", text.split(f"\n{heading}\n")[1])[0]
        lines = [line[2:] for line in part.splitlines() if line.startswith("# ")]
        shown = "\n".join(line for line in lines if re.fullmatch(r"[a-z_]+ = .+", line))
        for key, value in tomllib.loads(shown).items():
            default = fields[key].default
            assert (tuple(value) if isinstance(value, list) else value) == default, key


def test_a_topic_is_reached_by_tls_unless_a_line_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    text = (
        '[[channel]]\nname = "a"\nkind = "sns"\ntopic_arn = "arn:aws:sns:eu-central-1:123456789012:oee"\n'
        'endpoint_url = "http://{}"\n'
    )
    path.write_text(text.format("vpce.example.com"))
    with pytest.raises(ConfigError, match=r"channel\[a\].endpoint_url: would carry alerts .* in plain text"):
        load(path)
    path.write_text(text.format("vpce.example.com") + "allow_insecure = true\n")
    load(path)
    path.write_text(text.format("127.0.0.1:5000"))
    load(path)


def test_all_faults_are_told_at_once_and_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text("""
[[channel]]
name = "a"
kind = "apprise"
url = "secret-token"
title = "{machine.__class__}"
timezone = "Europe/Nowhere"
[[channel]]
name = "a"
kind = "sns"
topic_arn = "oee"
colour = "red"
[[channel]]
name = "b"
kind = "sns"
[[channel]]
name = "a"
kind = "apprise"
quiet = [{ from = "25:00", to = "06:00" }]
[[channel]]
name = "a"
kind = "apprise"
""")
    with pytest.raises(ConfigError) as caught:
        load(path)
    told = str(caught.value)
    assert {fault.key.split("].", 1)[-1] for fault in caught.value.faults} >= {
        "url",
        "title",
        "timezone",
        "colour",
        "topic_arn",
        "name",
    }
    assert "channel[a].quiet[1].from" in told
    assert "secret-token" not in told


@pytest.mark.parametrize(
    ("changes", "is_wanted"),
    [
        ({}, True),
        ({"rules": ["idle"]}, True),
        ({"rules": ["fault"]}, False),
        ({"events": ["cleared"]}, False),
        ({"min_level": 2}, False),
        ({"places": ["berlin"]}, True),
        ({"places": ["berlin/packaging/line-1"]}, True),
        ({"places": ["berlin/packaging/line-1/filler-1"]}, True),
        ({"places": ["berlin/packaging/line"]}, False),
    ],
)
def test_a_channel_is_told_of_what_it_asked_for(changes: dict[str, Any], is_wanted: bool) -> None:
    assert channel(**changes).wants(said()) is is_wanted


@pytest.mark.parametrize(
    ("hour", "is_quiet"),
    [(21.99, False), (22, True), (24, True), (29.99, True), (30, False), (46, False)],
)
def test_quiet_hours_over_midnight_belong_to_the_day_they_begin(hour: float, is_quiet: bool) -> None:
    quiet = channel(quiet=[{"from": "22:00", "to": "06:00", "days": ["fri"]}])
    assert quiet.is_quiet(round((FRIDAY + hour * HOUR) * 1e6), UTC) is is_quiet


def test_quiet_hours_are_of_the_site_unless_the_channel_says_otherwise() -> None:
    hours = [{"from": "12:00", "to": "13:00"}]
    noon_us = (FRIDAY + 10 * HOUR) * 1_000_000
    assert channel(quiet=hours).is_quiet(noon_us, ZoneInfo("Europe/Berlin"))
    assert not channel(quiet=hours, timezone="UTC").is_quiet(noon_us, ZoneInfo("Europe/Berlin"))


def test_words_are_the_templates_with_local_time() -> None:
    words = channel(title="{level} {rule}/{event} {by}", body="{message} {since}\n{advice}\n{name}")
    assert words.words(said(), ZoneInfo("Europe/Berlin")) == (
        "1 idle/raised ",
        "stands 2021-07-02 01:59:00 CEST\nfiller-1 on line-1",
    )


def test_a_missing_secret_is_told_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OEE_TEST_URL", raising=False)
    with pytest.raises(NotificationError, match="OEE_TEST_URL"):
        channel(url=None, url_env="OEE_TEST_URL").secret_url()
    monkeypatch.setenv("OEE_TEST_URL", "json://a")
    assert channel(url=None, url_env="OEE_TEST_URL").secret_url() == "json://a"
    (tmp_path / "url").write_text("json://b\n")
    assert channel(url=None, url_file=str(tmp_path / "url")).secret_url() == "json://b"


def test_names_that_the_plant_lacks_are_told_since_nobody_would_be() -> None:
    rules = [
        {"name": "a", "kind": "idle", "machines": ["filler-*", "filer-2"], "lines": ["line-1"]},
        {"name": "b", "kind": "idle", "lines": ["line-9"]},
        {"name": "c", "kind": "gateway", "sites": ["plant", "munich"], "gateways": ["gw-*"]},
    ]
    places = ["plant/packaging/line-1/", "plant/packaging/line-2", "plant/gateways/gw-1", "plant"]
    config = AlertsConfig.model_validate(
        {
            "rule": rules,
            "channel": [{"name": "c", "kind": "apprise", "url": "json://127.0.0.1", "places": places}],
        }
    )
    assert unknown_names(config, plant(machines=("filler-1", "capper-1"))) == [
        "channel[c].places: nothing of the plant lies in 'plant/packaging/line-2'",
        "rule[a].machines: no machine 'filer-2'",
        "rule[b]: covers no machine of the plant",
        "rule[c].sites: no site 'munich'",
    ]
