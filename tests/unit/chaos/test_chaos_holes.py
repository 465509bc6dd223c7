"""The judge of records, where a tag has died without a word, or a PLC has stood still."""

from tests.support.judge import TWO_LOOKS_US, Moment, Mute, Span, Verdict, judge
from tests.support.kept import US, Shown, Stored

MACHINE = "line-1/filler-1"
DIED = 10 * US


def moment(at_secs: float, state: str, *changed: str, total: int = 1) -> Moment:
    return Moment(round(at_secs * US), Shown(state, total, 0, None, "SKU-1"), frozenset(changed))


def record(at_secs: float, state: str, sequence: int, *, total: int = 1) -> Stored:
    shown = Shown(state, total, 0, None, "SKU-1")
    return Stored(MACHINE, round(at_secs * US), shown, "gw", sequence, "good")


def verdict(moments: list[Moment], stored: list[Stored], tag: str = "State") -> Verdict:
    silence = Span(DIED, DIED + 2 * US, "delete tag", MACHINE, tag)
    return judge({MACHINE: moments}, stored, silences=[silence])


BEGUN = [moment(1, "running", "State", "TotalUnits")]
FIRST = record(1, "running", 1)


def test_what_changed_and_changed_back_between_two_looks_is_a_hole() -> None:
    moments = [*BEGUN, moment(12, "idle", "State"), moment(15, "running", "State")]
    found = verdict(moments, [FIRST, record(14, "running", 2)])
    assert found.faults == []
    assert len(found.holes) == 3


def test_what_stays_otherwise_for_two_looks_has_to_be_found() -> None:
    after = 12 + TWO_LOOKS_US / US
    moments = [*BEGUN, moment(12, "idle", "State"), moment(after, "running", "State")]
    assert len(verdict(moments, [FIRST, record(14, "running", 2)]).phantoms) == 1
    still = [*BEGUN, moment(12, "idle", "State"), moment(after, "idle", "TotalUnits", total=2)]
    assert len(verdict(still, [FIRST, record(14, "running", 2)]).phantoms) == 1


def test_what_another_tag_or_an_earlier_record_says_is_no_hole() -> None:
    moments = [*BEGUN, moment(12, "idle", "State"), moment(15, "running", "State")]
    assert len(verdict(moments, [FIRST, record(14, "running", 2)], tag="Product").phantoms) == 1
    assert len(verdict(moments, [FIRST, record(14, "running", 2, total=3)]).phantoms) == 1
    early = [*BEGUN, moment(5, "idle", "State"), moment(8, "running", "State")]
    assert len(verdict(early, [FIRST, record(6, "running", 2)]).phantoms) == 1


def test_a_tag_that_shows_something_else_is_waited_for() -> None:
    def seen_by_us(*moments: Moment) -> int:
        return Mute(
            Span(DIED, DIED, "delete tag", MACHINE, "State"), [*BEGUN, *moments], 30 * US
        ).seen_by_us()

    idle, running = moment(12, "idle", "State"), moment(15, "running", "State")
    assert seen_by_us() == seen_by_us(idle, running) == 0
    assert seen_by_us(idle) == 12 * US + TWO_LOOKS_US
    assert seen_by_us(idle, running, moment(17, "idle", "State")) == 17 * US + TWO_LOOKS_US


def test_a_counter_is_judged_by_when_it_could_be_known() -> None:
    """The PLC stood still from 2 to 7 s, and had said that nothing had changed before it wrote what had."""

    def unexplained(written_secs: float) -> list[str]:
        counted = moment(3, "running", "TotalUnits", total=2)._replace(written_us=round(written_secs * US))
        end = moment(6, "idle", "State", total=2)
        stored = [FIRST, record(6, "idle", 2, total=2)]
        return judge({MACHINE: [*BEGUN, counted, end]}, stored).unexplained

    assert unexplained(7) == []
    assert len(unexplained(3)) == 1


def test_a_plc_that_boots_for_long_shows_what_was_when_it_was_switched_on() -> None:
    """Until it writes what it did meanwhile, its old values hold; without being told when, the judge errs."""
    meanwhile = moment(3, "idle", "State")
    stored = [FIRST, record(5, "running", 2), record(5, "idle", 3)]

    def found(written_secs: float | None) -> Verdict:
        written_us = None if written_secs is None else round(written_secs * US)
        late = meanwhile._replace(written_us=written_us)
        return judge({MACHINE: [*BEGUN, late]}, stored, edge_us=US)

    assert found(written_secs=5).phantoms == []
    assert len(found(written_secs=None).phantoms) == 1
