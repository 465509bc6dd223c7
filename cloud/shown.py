"""How timelines are shown: what a machine does now and since when, its segments, its verdicts."""

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np

from cloud.alerts.conditions import Past, Stretch
from cloud.evaluation import Evaluation
from cloud.oee.calendar import NOT_SCHEDULED, PLANNED_STOP, PRODUCTION, ShiftWindow
from cloud.oee.frame import Frame
from cloud.oee.losses import BUCKETS, Cells
from cloud.oee.records import UNKNOWN
from cloud.oee.totals import Totals
from cloud.plant import Machine
from cloud.views import Category, LossLevel, Segment, ShiftView
from contract.states import STATES_BY_CODE, MachineState

_WARNING_SHARE: Final = 0.9
CATEGORIES: Final[tuple[Category, ...]] = ("not_scheduled", "production", "break", "planned_stop")
"""By the calendar's code."""
_RATIOS: Final = ("oee", "availability", "performance", "quality")


class MachinePast(NamedTuple):
    """The cells of one machine up to now."""

    cells: Cells
    frame: Frame
    begin: int
    end: int

    @property
    def state(self) -> MachineState:
        """Return the last state."""
        return STATES_BY_CODE[self.cells.state[self.end - 1] if self.end > self.begin else UNKNOWN]

    def text(self, column: str, name_of: Any) -> str | None:
        """Return the last reason, product or order."""
        if self.end == self.begin:
            return None
        found: str | None = name_of(int(getattr(self.cells, column)[self.end - 1]))
        return found

    def state_since_us(self, now_us: int) -> int:
        """Return when the last state began."""
        since_us = now_us
        for row in range(self.end - 1, self.begin - 1, -1):
            if STATES_BY_CODE[self.cells.state[row]] is not self.state:
                break
            since_us = int(self.cells.start_us[row])
        return since_us

    def recent(self, now_us: int, name_of: Callable[[int], str | None]) -> Past:
        """Return the timeline back to where the machine last began, or ceased, to run or to be known."""
        stretches: list[Stretch] = []
        category, is_unknown = NOT_SCHEDULED, False
        if self.state is MachineState.RUNNING:  # nobody asks of which parts its running is
            category = int(self.frame.category[self.cells.interval[self.end - 1]])
            running = Stretch(self.state_since_us(now_us), now_us, self.state, category == PRODUCTION)
            return Past((running,), is_planned=category not in (NOT_SCHEDULED, PLANNED_STOP))
        for row in range(self.end - 1, self.begin - 1, -1):
            state = STATES_BY_CODE[self.cells.state[row]]
            here = int(self.frame.category[self.cells.interval[row]])
            if not stretches:
                category, is_unknown = here, state is MachineState.UNKNOWN
            elif state is MachineState.RUNNING or (state is MachineState.UNKNOWN) != is_unknown:
                break
            stretches.append(
                Stretch(
                    int(self.cells.start_us[row]),
                    int(self.cells.end_us[row]),
                    state,
                    here == PRODUCTION,
                    name_of(int(self.cells.reason[row])),
                )
            )
        return Past(tuple(stretches[::-1]), is_planned=category not in (NOT_SCHEDULED, PLANNED_STOP))


def targets_of(machines: Iterable[Machine]) -> dict[str, float]:
    """Return the target of each ratio; of several machines the mean of theirs."""
    targets = [machine.targets for machine in machines]
    return {
        ratio: float(sum(getattr(each, ratio) for each in targets)) / max(len(targets), 1)
        for ratio in _RATIOS
    }


def verdicts(figures: Mapping[str, Any] | None, targets: Mapping[str, float]) -> dict[str, LossLevel]:
    """Return how each ratio stands to its target."""
    found: dict[str, LossLevel] = {}
    for ratio, target in targets.items():
        value = None if figures is None else figures[ratio]
        if value is None:
            found[ratio] = "none"
        elif value >= target:
            found[ratio] = "good"
        else:
            found[ratio] = "warning" if value >= _WARNING_SHARE * target else "bad"
    return found


def shift_view(window: ShiftWindow) -> ShiftView:
    """Return a shift window as it is shown."""
    return ShiftView(
        name=window.name,
        production_date=window.production_date.isoformat(),
        start_epochtime=window.start_us / 1e6,
        end_epochtime=window.end_us / 1e6,
        calendar=window.calendar,
        crew=window.crew or None,
    )


def segments_of(
    cells: Cells, machine: int, frame: Frame, between_us: tuple[int, int], evaluation: Evaluation
) -> list[Segment]:
    """Return the cells of a machine within [from_us, to_us) as they are shown, equal neighbours made one."""
    from_us, to_us = between_us
    names = evaluation.names
    site = evaluation.plant.machines[names.machines[machine]].site
    rows = (cells.machine == machine) & (cells.end_us > from_us) & (cells.start_us < to_us)
    found: list[Segment] = []
    last: object = None
    for row in np.flatnonzero(rows).tolist():
        reason = names.text_or_none(int(cells.reason[row]))
        key = (
            STATES_BY_CODE[cells.state[row]].value,
            CATEGORIES[int(frame.category[cells.interval[row]])],
            BUCKETS[cells.kind[row]],
            reason,
            names.text_or_none(int(cells.product[row])),
        )
        start_us = max(int(cells.start_us[row]), from_us)
        end_us = min(int(cells.end_us[row]), to_us)
        if key == last and found[-1].end_epochtime == start_us / 1e6:
            start_secs = found.pop().start_epochtime
        else:
            start_secs = start_us / 1e6
        last = key
        known = None if reason is None else site.reason_for_code(reason)
        found.append(
            Segment(
                start_epochtime=start_secs,
                end_epochtime=end_us / 1e6,
                state=key[0],
                category=key[1],
                loss=key[2],
                reason=reason,
                reason_name=reason if known is None else known.name,
                product=key[4],
            )
        )
    return found


def cycle_of_made_us(machine: Machine, total: Totals, product: str | None = None) -> Fraction:
    """Return the mean ideal cycle time [us/unit] of what was made, or that of a product when nothing was.

    A goal in units made with it is met exactly where the OEE target is, whatever was made in between.
    """
    made = total.made.total
    if not made:
        return machine.cycle_us(product)
    return sum((cycle * units.total for cycle, units in total.units.items()), Fraction(0)) / made
