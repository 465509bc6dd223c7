"""Damaged messages of every topic: `make fuzz` goes on for longer."""

import random

import pytest

from contract.telemetry import Refusal, decode_one
from tests.fuzz.errors import DisagreementError
from tests.fuzz.json_messages import JsonFuzz, Judge, seeds
from tests.fuzz.mutation import damaged

ROUNDS = 400


def _play(fuzz: JsonFuzz) -> None:
    for _ in range(ROUNDS):
        fuzz.round()


def test_readers_and_judge_agree_on_damaged_messages() -> None:
    fuzz = JsonFuzz(11)
    _play(fuzz)
    assert fuzz.accepted > ROUNDS // 10
    assert fuzz.refused > ROUNDS


def test_sound_messages_are_accepted_by_the_judge() -> None:
    judge = Judge()
    for kind, texts in seeds().items():
        for text in texts:
            value = judge.value(text)
            assert all(judge.accepts(kind, item) for item in (value if isinstance(value, list) else [value]))


def test_a_reader_that_takes_too_much_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz = JsonFuzz(11)
    monkeypatch.setattr(fuzz._judge, "accepts", lambda kind, value: False)
    with pytest.raises(DisagreementError):
        _play(fuzz)


def test_the_same_seed_damages_the_same_way() -> None:
    first, second = (
        [damaged(dice, b'{"a": 1}', [b"[]"]) for _ in range(50)]
        for dice in (random.Random(3), random.Random(3))
    )
    assert first == second


@pytest.mark.parametrize("key", [b"\xed\xa0\x80", b"\xff", b"\\ud800"])
def test_text_that_nobody_can_write_is_refused_in_keys_too(key: bytes) -> None:
    whole = seeds()["telemetry"][0]
    assert isinstance(decode_one(whole[:-1] + b', "x' + key + b'": 1}'), Refusal)
