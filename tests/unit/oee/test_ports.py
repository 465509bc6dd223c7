"""Ports are chosen so that two demos can run side by side."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from oee.errors import CommandError
from oee.ports import choose, is_free, listening
from tests.support.ports import free_port


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on, between neighbours that are given to nobody else."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port() + 1))
        listener.listen()
        yield listener.getsockname()[1]


def test_the_wanted_port_is_taken_when_free() -> None:
    port = free_port()
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


async def test_waiting_for_a_port_ends_when_somebody_listens() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await listening(port, within_secs=1)
    server.close()
    await server.wait_closed()
    assert not await listening(port, within_secs=0.1)


def test_parts_with_several_ports_get_them_in_a_row(taken: int) -> None:
    first = choose(taken - 1, "the PLCs", fixed=False, count=2)
    assert first > taken
    with pytest.raises(CommandError, match=f"port {taken} for the PLCs"):
        choose(taken - 1, "the PLCs", fixed=True, count=2)
