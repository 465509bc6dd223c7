"""Damaged messages on every topic that a reader of ours takes, judged by one that shares no code with it.

The judge is the standard library's JSON with its leniencies closed, and the published JSON Schemas. Both must
say the same of every message: what the judge accepts is read with the very values, what it refuses is kept as
a dead letter, and nothing raises.
"""

import json
import math
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema

import contract.schema
from cloud.ingest.message import Message, receive
from cloud.store.rows import Names, placed, to_telemetry
from contract.delivery import Command, Gap, Status, decode_command
from contract.telemetry import Telemetry, encode
from tests.fuzz.errors import DisagreementError
from tests.fuzz.mutation import damaged

NOW_US: Final = 1_625_011_200_000_000
MAX_FUTURE_SECS: Final = 300.0
_LATEST: Final = NOW_US / 1e6 + MAX_FUTURE_SECS
_GATEWAY: Final = "oee/v1/berlin/gateways/gw"
_LIVE: Final = "oee/v1/berlin/packaging/line-1/filler-1/telemetry"
_SCHEMAS: Final = Path(contract.schema.__file__).parent
_PLACE: Final = {
    "site": "berlin",
    "area": "packaging",
    "line": "line-1",
    "machine": "filler-1",
    "gateway": "gw",
}
_MOST_BYTES: Final = 128 * 1024
_NAMED_BY_TOPIC: Final = {"telemetry": ("site", "area", "line", "machine")}


class Broken:
    """Stands for whatever no strict reader may accept: a key twice, NaN, a number that overflows."""


_BROKEN: Final = Broken()


class Judge:
    """Says which objects are acceptable, by the standard library and the published schemas alone."""

    def __init__(self) -> None:
        checker = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
            "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
        ).redefine("number", lambda _, value: isinstance(value, int | float) and not isinstance(value, bool))
        validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=checker)
        self._schemas = {
            name: validator(json.loads((_SCHEMAS / f"{name}.schema.json").read_bytes()))
            for name in ("telemetry", "gap", "status", "command")
        }
        self._schemas["backlog"] = self._schemas["telemetry"]

    def value(self, text: bytes) -> Any:
        """Read JSON; what is broken inside stands as Broken, as does text that is not JSON."""
        if len(text) > _MOST_BYTES:
            return _BROKEN
        try:
            return json.loads(
                text.decode("utf-8"),
                object_pairs_hook=lambda pairs: (
                    dict(pairs) if len({k for k, _ in pairs}) == len(pairs) else _BROKEN
                ),
                parse_constant=lambda _: _BROKEN,
                parse_float=lambda digits: float(digits) if math.isfinite(float(digits)) else _BROKEN,
                parse_int=lambda digits: (
                    int(digits) if len(digits) < 18 and abs(int(digits)) <= 2**53 else _BROKEN
                ),
            )
        except (ValueError, RecursionError):
            return _BROKEN

    def accepts(self, kind: str, value: Any) -> bool:
        """Tell whether a value is an object of a kind, of the place that the topics here are of."""
        if not isinstance(value, dict) or not _is_sound(value, 1) or not self._schemas[kind].is_valid(value):
            return False
        if any(value[key] != _PLACE[key] for key in _NAMED_BY_TOPIC.get(kind, ("site", "gateway"))):
            return False
        match kind:
            case "telemetry" | "backlog":
                return bool(value["epochtime"] <= _LATEST)
            case "gap":
                return bool(value["from_epochtime"] <= value["to_epochtime"] <= _LATEST)
            case "command":
                return bool(0 < value["expires_epochtime"] - value["epochtime"] <= 3600)
        return True


def _is_sound(value: Any, depth: int) -> bool:
    if isinstance(value, Broken):
        return False
    if isinstance(value, str):
        return not re.search("[\ud800-\udfff]", value)
    if isinstance(value, dict):
        return depth <= 4 and all(
            _is_sound(key, 0) and _is_sound(item, depth + 1) for key, item in value.items()
        )
    if isinstance(value, list):
        return depth <= 4 and all(_is_sound(item, depth + 1) for item in value)
    return True


def stored(messages: list[Message]) -> tuple[list[dict[str, Any]], list[Gap], list[Status], int]:
    """Read messages as the service does; return records as rows give them back, and how many were refused."""
    received = receive(messages, NOW_US, MAX_FUTURE_SECS)
    records: list[Telemetry] = list(received.arrivals.records)
    for draft in received.arrivals.drafts:
        names = Names()
        records += [one for one in to_telemetry(placed(draft, names), names) if isinstance(one, Telemetry)]
    return (
        [json.loads(encode(record)) for record in records],
        list(received.arrivals.gaps),
        list(received.statuses.values()),
        len(received.arrivals.dead_letters),
    )


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without what means nothing: spelled-out defaults, digits beyond the microsecond."""
    found = {key: item for key, item in value.items() if (key, item) != ("data_quality", "good")}
    return found | {"epochtime": round(float(found["epochtime"]), 6)}


def _seed(number: int, **more: Any) -> dict[str, Any]:
    return {
        "epochtime": NOW_US / 1e6 - number / 4,
        **_PLACE,
        "state": "running",
        "sequence": number,
        "total_units": 10 * number,
        **more,
    }


def seeds() -> dict[str, list[bytes]]:
    """Return good messages by kind."""
    rich = _seed(
        7,
        off_quality_units=3,
        reason_code=17,
        product="cola: 0.5 l",
        order="\u00fc-1",
        operator="Ida",
        ideal_run_rate=60.5,
        data_quality="uncertain",
        status="UncertainLastUsableValue",
        tags={"temperature": 21.5, "lit": True, "text": 'say "x"'},
        extra={"deep": {"er": 1}},
    )
    records = [_seed(1), _seed(2, good_units=5, reason_code="jam", data_quality="good"), rich]
    place = {key: _PLACE[key] for key in ("site", "gateway")}
    gap = {**_PLACE, "sequence": 9, "from_epochtime": 1e9, "to_epochtime": 1e9 + 5.5, "cause": "PLC silent"}
    status = {
        **place,
        "online": True,
        "epochtime": 1.625e9,
        "version": "1.0",
        "connections": [
            {"name": "plc-1", "endpoint": "opc.tcp://x", "state": "connected", "since_epochtime": 1.6e9}
        ],
        "backlog_records": 3,
        "last_error": "none",
    }
    command = {
        **place,
        "id": "1",
        "connection": "plc-1",
        "action": "stop",
        "requested_by": "Ida",
        "epochtime": 1.625e9,
        "expires_epochtime": 1.625e9 + 60,
    }
    listed = [records, records[:1], [_seed(number) for number in range(40)], []]
    written = {
        "telemetry": records,
        "backlog": listed,
        "gap": [gap],
        "status": [status],
        "command": [command],
    }
    return {kind: [json.dumps(value).encode() for value in values] for kind, values in written.items()}


TOPICS: Final = {
    "telemetry": _LIVE,
    "backlog": f"{_GATEWAY}/backlog",
    "gap": f"{_GATEWAY}/gap",
    "status": f"{_GATEWAY}/status",
    "command": f"{_GATEWAY}/command",
}


class JsonFuzz:
    """Damages messages and compares the readers' answers with the judge's."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._judge = Judge()
        self._seeds = seeds()
        self._all = [text for texts in self._seeds.values() for text in texts]
        self.tried = self.accepted = self.refused = 0

    def round(self) -> None:
        """Try one message of each kind; raise DisagreementError."""
        for kind, texts in self._seeds.items():
            payload = damaged(self._dice, self._dice.choice(texts), self._all)
            self.tried += 1
            try:
                accepted = self._try(kind, payload)
            except DisagreementError:
                raise
            except Exception as error:
                raise DisagreementError(kind, payload, f"{type(error).__name__}: {error}") from error
            self.accepted += accepted
            self.refused += not accepted

    def _try(self, kind: str, payload: bytes) -> bool:
        match kind:
            case "telemetry":
                return self._try_record(payload)
            case "backlog":
                return self._try_backlog(payload)
            case "command":
                answer = isinstance(decode_command(TOPICS[kind], payload), Command)
            case _:
                _, gaps, statuses, refused = stored([Message(TOPICS[kind], payload)])
                answer = bool(gaps or statuses)
                if kind == "status" and not payload:
                    return False  # a status that is taken back
                if refused != (not answer):
                    raise DisagreementError(kind, payload, f"{refused} dead letters")
        wanted = self._judge.accepts(kind, self._judge.value(payload))
        if answer != wanted:
            raise DisagreementError(kind, payload, f"accepted: {answer}, judge: {wanted}")
        return answer

    def _try_record(self, payload: bytes) -> bool:
        value = self._judge.value(payload)
        wanted = [plain(value)] if self._judge.accepts("telemetry", value) else []
        records, _, _, refused = stored([Message(TOPICS["telemetry"], payload)])
        self._compare("telemetry", payload, records, wanted)
        if refused != 1 - len(wanted):
            raise DisagreementError("telemetry", payload, f"{refused} dead letters")
        return bool(wanted)

    def _try_backlog(self, payload: bytes) -> bool:
        value = self._judge.value(payload)
        records, _, _, refused = stored([Message(TOPICS["backlog"], payload)])
        if not isinstance(
            value, list
        ):  # neighbours of what no reader can read may be saved, if they are sound
            for record in records:
                if not self._judge.accepts("backlog", record):
                    raise DisagreementError("backlog", payload, f"took {record}")
            if not records and not refused:
                raise DisagreementError("backlog", payload, "lost without a word")
            return bool(records)
        wanted = [plain(item) for item in value if self._judge.accepts("backlog", item)]
        self._compare("backlog", payload, records, wanted)
        if refused != len(value) - len(wanted):
            raise DisagreementError(
                "backlog", payload, f"{refused} dead letters of {len(value) - len(wanted)}"
            )
        return bool(wanted)

    @staticmethod
    def _compare(
        kind: str, payload: bytes, found: list[dict[str, Any]], wanted: list[dict[str, Any]]
    ) -> None:
        if sorted(map(repr, map(_ordered, found))) != sorted(map(repr, map(_ordered, wanted))):
            raise DisagreementError(kind, payload, f"read {found}, judge {wanted}")


def _ordered(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return an object in one form: numbers that are floats in the contract as floats."""
    reals = ("epochtime", "ideal_run_rate")
    return sorted(
        (key, round(float(item), 6) if key in reals else item) for key, item in plain(value).items()
    )
