"""What is read of telemetry files."""

import gzip
from pathlib import Path

import msgspec
import pytest

from cloud.errors import TelemetryFileError
from cloud.ingest.files import Batch, read
from contract.delivery import Gap
from contract.states import MachineState
from contract.telemetry import Telemetry, encode


def record(sequence: int) -> Telemetry:
    return Telemetry(
        epochtime=1625011200.0 + sequence,
        site="berlin",
        area="packaging",
        line="line-1",
        machine="filler-1",
        state=MachineState.RUNNING,
        gateway="gw",
        sequence=sequence,
    )


GAP = Gap(
    site="berlin",
    area="packaging",
    line="line-1",
    machine="filler-1",
    gateway="gw",
    sequence=99,
    from_epochtime=1625011300.0,
    to_epochtime=1625011400.0,
    cause="PLC silent",
)


def whole(path: Path, batch_lines: int = 5000, latest: float = 2e9) -> Batch:
    batches = list(read(path, batch_lines, latest_epochtime=latest))
    return Batch(
        [item for batch in batches for item in batch.records],
        [item for batch in batches for item in batch.gaps],
        [item for batch in batches for item in batch.bad_lines],
        batches[-1].read_bytes if batches else 0,
    )


@pytest.mark.parametrize("batch_lines", [1, 7, 5000])
@pytest.mark.parametrize("packed", [False, True])
def test_lines_are_read_in_order_plain_and_packed(tmp_path: Path, batch_lines: int, packed: bool) -> None:
    text = b"".join(encode(record(n)) + b"\n" for n in range(20))
    path = tmp_path / "telemetry"
    path.write_bytes(gzip.compress(text) if packed else text)
    found = whole(path, batch_lines)
    assert found.records == [record(n) for n in range(20)]
    assert found.bad_lines == []
    assert found.read_bytes == path.stat().st_size


def test_bad_lines_are_named_and_their_neighbours_read(tmp_path: Path) -> None:
    lines = [
        encode(record(1)),
        b"",
        b"not JSON",
        msgspec.json.encode(GAP),
        b'{"from_epochtime": 1}',
        encode(record(2)) + b"," + encode(record(3)),
        encode(record(4)) + b"\r",
        b"\xff",
    ]
    path = tmp_path / "day.jsonl"
    path.write_bytes(b"\n".join(lines))
    found = whole(path)
    assert found.records == [record(1), record(4)]
    assert found.gaps == [GAP]
    assert [(bad.file, bad.line) for bad in found.bad_lines] == [(str(path), n) for n in (3, 5, 6, 8)]
    assert all(bad.reason for bad in found.bad_lines)
    assert str(found.bad_lines[0]).startswith(f"{path}:3: ")


def test_a_line_may_hold_an_array(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    path.write_bytes(b"[" + encode(record(1)) + b", {}," + encode(record(2)) + b"]\n" + encode(record(3)))
    found = whole(path)
    assert found.records == [record(1), record(2), record(3)]
    assert [bad.line for bad in found.bad_lines] == [1]


def test_lines_that_run_into_each_other_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    path.write_bytes(encode(record(1))[:-1] + b', "more": "}\n' + b'{"}\n' + encode(record(2)))
    found = whole(path)
    assert found.records == [record(2)]
    assert [bad.line for bad in found.bad_lines] == [1, 2]


def test_an_endless_line_is_refused_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    path.write_bytes(b"x" * 3_000_000 + b"\n" + encode(record(2)))
    found = whole(path)
    assert found.records == [record(2)]
    (bad,) = found.bad_lines
    assert bad.line == 1
    assert len(bad.text) < 200_000


def test_the_future_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    path.write_bytes(encode(record(1)) + b"\n" + encode(record(5)) + b"\n" + msgspec.json.encode(GAP))
    found = whole(path, latest=1625011203.0)
    assert found.records == [record(1)]
    assert [bad.line for bad in found.bad_lines] == [2, 3]


@pytest.mark.parametrize("content", [None, gzip.compress(b"x" * 1000)[:-20]], ids=["missing", "cut off"])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "day.jsonl.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TelemetryFileError, match=r"day\.jsonl\.gz"):
        whole(path)


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    path.write_bytes(b"")
    assert whole(path).records == []


def test_a_gap_whose_machine_is_no_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "telemetry"
    path.write_bytes(msgspec.json.encode(GAP).replace(b'"filler-1"', b'"filler-1\\n"') + b"\n")
    found = whole(path)
    assert found.gaps == []
    assert [line.line for line in found.bad_lines] == [1]
