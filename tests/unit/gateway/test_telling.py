"""What the status says of connections, within its bounds."""

import msgspec
import pytest

from contract.delivery import ConnectionFault, ConnectionStatus, LiveValue, Status, decode
from gateway.telling import MAX_STATUS_BYTES, Pace, by_turns, encode_status


def test_a_pace_is_the_mean_of_the_last_ten_seconds():
    pace = Pace()
    assert pace.per_sec() == (0.0, 0.0)
    for second in range(60):
        faster = max(0, second - 49)
        pace.note(float(second), 4 * second, 100 * second + 900 * faster)
    assert pace.per_sec() == (4.0, 1000.0)


def test_a_source_that_counts_anew_has_no_pace_below_zero():
    pace = Pace()
    pace.note(0.0, 1000, 5000)
    pace.note(1.0, 3, 10)
    assert pace.per_sec() == (0.0, 0.0)
    pace.note(2.0, 5, 20)
    assert pace.per_sec() == (2.0, 10.0)


def status(values: int, faults: int) -> Status:
    told = [
        LiveValue(connection="plc", tag=f"a/l/m {n}", epochtime=1.7e9, value="x" * 60) for n in range(values)
    ]
    said = [ConnectionFault(connection="plc", epochtime=1.7e9 + n, text="y" * 200) for n in range(faults)]
    return Status(
        gateway="edge",
        site="plant",
        online=True,
        epochtime=1.7e9,
        connections=[
            ConnectionStatus(
                name="plc",
                endpoint="opc.tcp://p",
                state="connected",
                since_epochtime=1.7e9,
                values_per_sec=2.5,
            )
        ],
        values=told,
        faults=said,
    )


@pytest.mark.parametrize(("values", "faults"), [(0, 0), (5, 2), (10_000, 20), (10_000, 1000)])
def test_a_status_is_never_longer_than_allowed_and_a_reader_takes_it(values, faults):
    payload = encode_status(status(values, faults))
    assert len(payload) <= MAX_STATUS_BYTES
    read = decode(payload, Status)
    assert read.connections[0].values_per_sec == 2.5
    if (values, faults) == (5, 2):
        assert (len(read.values), len(read.faults)) == (5, 2)


def test_the_newest_faults_are_kept():
    payload = encode_status(status(0, 1000))
    assert decode(payload, Status).faults[-1].epochtime == 1.7e9 + 999


def test_what_is_cut_off_is_cut_off_fairly():
    assert by_turns([[1, 2, 3], [], [10, 20]]) == [1, 10, 2, 20, 3]
    assert by_turns([]) == []


def test_an_old_reader_takes_a_status_with_fields_that_it_does_not_know():
    class Old(msgspec.Struct):
        gateway: str
        online: bool

    assert msgspec.json.decode(encode_status(status(3, 3)), type=Old).online
