"""What `oee simulate` refuses and warns of."""

import pytest

from simulator import commands


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "plant.example"])
def test_a_factory_that_a_network_could_write_needs_a_word(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.run(commands.Options(host=host, port=0)) == 2
    assert "--allow-insecure" in capsys.readouterr().err


def test_that_word_is_told_again_as_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    loopback = "127.1"  # written so that it is not known for what it is
    options = commands.Options(
        host=loopback, port=0, allow_insecure=True, duration_secs=0, history_hours=0, wait=False
    )
    assert commands.run(options) == 0
    assert "anybody who reaches 127.1 can read and write" in capsys.readouterr().err
