"""Ports are chosen so that two demos can run side by side."""

import socket
from collections.abc import Iterator

import pytest

from oee.errors import CommandError
from oee.ports import choose, is_free


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_the_wanted_port_is_taken_when_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    assert choose(port, "the board", fixed=False) == port
    assert choose(port, "the board", fixed=True) == port


def test_the_next_free_port_is_chosen_for_a_default_in_use(taken: int) -> None:
    assert choose(taken, "the board", fixed=False) > taken


def test_a_port_that_was_asked_for_is_never_exchanged(taken: int) -> None:
    with pytest.raises(CommandError, match=f"port {taken} for the board is in use by another program"):
        choose(taken, "the board", fixed=True)


def test_a_port_given_to_another_part_is_left_out(taken: int) -> None:
    wanted = taken + 1
    assert choose(wanted, "the board", fixed=False, taken={wanted}) > wanted


def test_a_listening_port_is_not_free(taken: int) -> None:
    assert not is_free(taken)
