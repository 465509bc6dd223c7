"""What the judge of figures does not hold against anybody: what nobody can know, or may believe."""

import pytest

from contract.states import MachineState
from simulator.truth import SMALL_STOP_SECS, History
from tests.chaos.judgement import is_undecided, was_reset_in_the_dark
from tests.support.kept import US, Shown, Stored

END_US = 300 * US


def history(*states: tuple[float, MachineState]) -> History:
    known = [(round(at_secs * US), state) for at_secs, state in states]
    return History(line="line-1", machine="filler-1", ideal_run_rates={}, states=known)


def told_until(at_secs: float) -> list[Stored]:
    shown = Shown("stopped", 1, 0, None, "SKU-1")
    return [Stored("line-1/filler-1", round(at_secs * US), shown, "gw", 1, "good")]


def test_a_stop_that_was_not_over_when_the_log_ended_may_be_small() -> None:
    stands = history((0, MachineState.RUNNING), (297, MachineState.STOPPED), (298, MachineState.FAULTED))
    assert stands.stands_since_us == 297 * US
    assert is_undecided(stands, told_until(306), END_US)


def test_a_stop_that_was_over_or_came_later_or_is_long_already_is_known() -> None:
    over = history((297, MachineState.STOPPED), (303, MachineState.RUNNING))
    assert over.stands_since_us is None
    assert not is_undecided(over, told_until(306), END_US)
    assert not is_undecided(history((301, MachineState.STOPPED)), told_until(306), END_US)
    assert not is_undecided(history((297, MachineState.STOPPED)), told_until(297 + SMALL_STOP_SECS), END_US)


@pytest.mark.parametrize(
    ("quality", "total_units", "is_dark"),
    [("good", 127, False), ("bad", 127, True), ("uncertain", None, True)],
)
def test_a_reset_is_in_the_dark_where_no_total_was_told_that_counts(
    quality: str, total_units: int | None, is_dark: bool
) -> None:
    def told(at_secs: float, quality: str, total_units: int | None) -> Stored:
        shown = Shown("unknown", total_units, 0, None, "SKU-1")
        return Stored("line-1/filler-1", round(at_secs * US), shown, "gw", round(at_secs), quality)

    stored = [told(10, "good", 124), told(20, quality, total_units), told(30, "good", 16)]
    assert was_reset_in_the_dark([25 * US], stored, "line-1/filler-1") is is_dark
    assert not was_reset_in_the_dark([35 * US], stored, "line-1/filler-1")
