"""The example files that ship can be found, shown, copied, and read by the part they are for."""

from pathlib import Path

import pytest

from oee import examples
from oee.errors import CommandError, UsageError


def test_every_example_begins_with_a_line_that_says_what_it_is() -> None:
    for path in examples.paths():
        assert path.read_text().startswith("# "), path.name


def test_the_three_configurations_are_there() -> None:
    names = {path.name for path in examples.paths()}
    assert names >= {"gateway.example.toml", "cloud.example.toml", "plant.example.toml"}


def test_an_example_is_found_by_its_short_name() -> None:
    assert examples.text("plant") == examples.text("plant.example.toml")


def test_an_unknown_example_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"there are: .*plant.example.toml"):
        examples.text("nothing")


def test_copies_lose_the_word_example_and_never_replace_unasked(tmp_path: Path) -> None:
    written = examples.write(tmp_path / "oee")
    assert tmp_path / "oee" / "plant.toml" in written
    assert tmp_path / "oee" / "systemd" / "oee-gateway.service" in written
    (tmp_path / "oee" / "plant.toml").write_text("mine")
    with pytest.raises(CommandError, match="--replace overwrites"):
        examples.write(tmp_path / "oee")
    assert (tmp_path / "oee" / "plant.toml").read_text() == "mine"
    examples.write(tmp_path / "oee", replace=True)
    assert (tmp_path / "oee" / "plant.toml").read_text() == examples.text("plant")


def test_every_example_can_be_used_as_it_is(tmp_path: Path) -> None:
    """Secrets and certificates that a file names are made up where they must be readable."""
    from cloud import config as cloud_config
    from cloud import plant
    from cloud.alerts import config as alerts
    from cloud.masterdata import config as masterdata
    from gateway import config as gateway_config

    examples.write(tmp_path)
    gateway_config.load(tmp_path / "gateway.toml")
    cloud_config.load(tmp_path / "cloud.toml")
    plant.load(tmp_path / "plant.toml")
    masterdata.load(tmp_path / "masterdata.toml")
    alerts.load(tmp_path / "alerts.toml")
