"""What cloud.toml may say."""

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cloud.config import CloudConfig, is_loopback, load
from cloud.errors import ConfigError

EXAMPLE = Path(__file__).parents[3] / "config" / "cloud.example.toml"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cloud.toml"
    path.write_text(text)
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return [str(fault).removeprefix(f"{path}: ") for fault in caught.value.faults]


def defaults(model: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, table in CloudConfig.model_fields.items():
        for key, field in table.annotation.model_fields.items():
            found[f"{name}.{key}"] = field.default
    return found


def as_toml(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def test_the_example_holds_every_option_with_its_default() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    uncommented = re.sub(r"^# (\w+ =)", r"\1", text, flags=re.MULTILINE)
    unset = re.findall(r"^(\w+) =\s*$", uncommented, flags=re.MULTILINE)
    told = tomllib.loads(re.sub(r"^\w+ =\s*$", "", uncommented, flags=re.MULTILINE))
    shown = {f"{table}.{key}": value for table, options in told.items() for key, value in options.items()}
    expected = {key: as_toml(value) for key, value in defaults(CloudConfig).items()}
    assert {key.split(".")[1] for key, value in expected.items() if value is None} == set(unset)
    assert shown == {key: value for key, value in expected.items() if value is not None}


def test_every_option_of_the_example_stands_under_a_sentence() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match(r"# \w+ =", line):
            assert before.startswith("# "), line
            assert before.endswith("."), line


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    config = load(written(tmp_path, ""))
    assert config.mqtt == CloudConfig().mqtt
    assert config.cloud.plant == tmp_path / "plant.toml"


def test_relative_paths_are_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x\n")
    config = load(
        written(
            tmp_path,
            '[cloud]\ndata_dir = "store"\nplant = "/etc/plant.toml"\n'
            '[mqtt]\nusername = "oee"\npassword_file = "secret"\n',
        )
    )
    assert config.cloud.data_dir == tmp_path / "store"
    assert config.cloud.plant == Path("/etc/plant.toml")
    assert config.mqtt.password_file == tmp_path / "secret"


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    found = faults(
        written(
            tmp_path,
            "[cloud]\nshift_close_grace_secs = -1\nlog_level = 'loud'\n[mqtt]\nurl = 'http://x'\nurll = 1\n"
            "password_file = 'p'\n[web]\nport = '80'\n[grafana]\n",
        )
    )
    assert len(found) == 8
    for part in ("cloud.shift_close_grace_secs", "allowed: 'debug'", "did you mean url?", "mqtt://HOST"):
        assert any(part in fault for fault in found), part


@pytest.mark.parametrize(
    "lines",
    [
        "url = 'mqtt://'",
        "url = 'mqtt://host:99999'",
        "url = 'mqtt://user:secret@127.0.0.1'",
        "url = 'mqtt://127.0.0.1/path'",
        "url = 'mqtt://10.0.0.5'",
        "certificate_file = 'a'",
        "ca_file = 'a'",
        "keepalive_secs = 0",
        "keepalive_secs = true",
        "connect_timeout_secs = nan",
        "connect_timeout_secs = inf",
        "protocol = 5",
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, lines: str) -> None:
    assert faults(written(tmp_path, f"[mqtt]\n{lines}\n"))


def test_plain_text_to_another_machine_needs_a_word(tmp_path: Path) -> None:
    (fault,) = faults(written(tmp_path, "[mqtt]\nurl = 'mqtt://broker.plant'\n"))
    assert "allow_insecure = true" in fault
    config = load(written(tmp_path, "[mqtt]\nurl = 'mqtt://broker.plant'\nallow_insecure = true\n"))
    assert config.mqtt.is_exposed
    assert config.mqtt.port == 1883
    config = load(written(tmp_path, "[mqtt]\nurl = 'mqtts://broker.plant'\n"))
    assert not config.mqtt.is_exposed
    assert config.mqtt.port == 8883


def test_loopback_is_this_machine_alone() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("localhost.example", "10.0.0.1", "0.0.0.0", "127.0.0.1.example")))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")


def test_lists_are_read_as_they_are_written(tmp_path: Path) -> None:
    config = load(
        written(
            tmp_path,
            '[ingest]\ngateways = { gw-1 = ["berlin/packaging", "*/line-?"] }\n'
            '[web]\nhosts = ["oee.example"]\ntrusted_proxies = ["10.0.0.1"]\n',
        )
    )
    assert config.ingest.gateways == {"gw-1": ("berlin/packaging", "*/line-?")}
    assert config.web.hosts == ("oee.example",)
    assert config.web.trusted_proxies == ("10.0.0.1",)


def test_a_place_has_one_to_four_levels_of_names(tmp_path: Path) -> None:
    told = faults(written(tmp_path, '[ingest]\ngateways = { gw-1 = ["a/b/c/d/e", "a b"], "gw 2" = [] }\n'))
    assert [fault.split(":")[0] for fault in told] == [
        "ingest.gateways.gw-1[1]",
        "ingest.gateways.gw-1[2]",
        "ingest.gateways.gw 2.[key]",
    ]
