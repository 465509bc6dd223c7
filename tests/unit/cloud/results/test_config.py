"""What results.toml may say."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cloud.errors import AddressError, ConfigError
from cloud.results.config import ResultsConfig, WebhookTable, load

EXAMPLE = Path(__file__).parents[4] / "config" / "results.example.toml"
GIVEN = {"name", "url", "url_env", "secret_env"}


def faults(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "results.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [f"{fault.key}: {fault.problem}" for fault in caught.value.faults]


def test_the_example_holds_every_option_with_its_default() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    uncommented = re.sub(r"^# (\w+ =)", r"\1", text, flags=re.MULTILINE)
    for table, section in re.findall(
        r"^\[\[(\w+)\]\]\n(.*?)(?=^\[\[|\Z)", uncommented, re.MULTILINE | re.DOTALL
    ):
        unset = set(re.findall(r"^(\w+) =\s*$", section, flags=re.MULTILINE))
        told = tomllib.loads(re.sub(r"^\w+ =\s*$", "", section, flags=re.MULTILINE))
        model: Any = ResultsConfig.model_fields[table].annotation.__args__[0]
        fields = {field.alias or key: field.default for key, field in model.model_fields.items()}
        assert told.keys() | unset == fields.keys(), table
        for key in told.keys() - GIVEN:
            default = fields[key]
            assert told[key] == (list(default) if isinstance(default, tuple) else default), f"{table}.{key}"
        assert all(fields[key] is None for key in unset)


def test_the_example_can_be_read() -> None:
    config = load(EXAMPLE)
    assert [table.name for table in config.mails()] == ["shift-leads", "engineer"]
    assert config.report[0].channels() == {"mail:shift-leads": None}


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """
[[report]]
name = "a"
[[report]]
name = "a"
folder = "x"
formats = []
to = ["lead@example.com, boss@example.com"]
[[health]]
name = "h"
url = "mailtos://x"
timezone = "Europe/Nowhere"
[[webhook]]
name = "w"
url = "http://erp.example.com/hook"
[[webhook]]
name = "w"
url = "https://user:password@erp.example.com/"
secret_env = "A"
secret_file = "b"
[[export]]
name = "e"
url = "sqlite:///x"
url_env = "E"
""",
    )
    assert found == [
        "report[a]: names no URL",
        "report[a].to: names 'lead@example.com, boss@example.com'",
        "report[a].to: is named, but no URL to send by",
        "report[a].formats: is empty, so that nothing would be written to the folder",
        "health[h].timezone: is 'Europe/Nowhere'",
        "webhook[w].secret_env: is missing, so that nobody could tell our messages from others'",
        "webhook[w].url: would carry figures in plain text to another machine",
        "webhook[w].secret_env: stands beside secret_file",
        "webhook[w].url: is no plain web address",
        "webhook[w].name: stands twice",
        "export[e]: names url and url_env",
        "report[a].name: stands twice",
    ]


def test_plain_text_needs_a_word(tmp_path: Path) -> None:
    path = tmp_path / "results.toml"
    path.write_text('[[webhook]]\nname = "w"\nurl = "http://erp.example.com/hook"\nallow_insecure = true\n')
    assert load(path).webhook[0].secret() is None


def test_relative_paths_are_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.toml"
    path.write_text('[[report]]\nname = "r"\nfolder = "out"\n')
    assert load(path).report[0].folder == tmp_path / "out"


def test_each_recipient_has_a_queue(tmp_path: Path) -> None:
    path = tmp_path / "results.toml"
    path.write_text('[[report]]\nname = "r"\nurl = "mailtos://x"\nto = ["a@example.com", "b@example.com"]\n')
    channels = load(path).report[0].channels()
    assert channels == {"mail:r:a@example.com": "a@example.com", "mail:r:b@example.com": "b@example.com"}


def test_secrets_are_read_from_where_they_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    table = WebhookTable(name="w", url_env="HOOK", secret_file=tmp_path / "secret")
    with pytest.raises(AddressError, match="HOOK is not set"):
        table.address()
    monkeypatch.setenv("HOOK", "https://erp.example.com")
    assert (table.address(), table.secret()) == ("https://erp.example.com", "from a file")
    with pytest.raises(AddressError, match="cannot be read"):
        WebhookTable(name="w", url="https://x", secret_file=tmp_path / "none").secret()
