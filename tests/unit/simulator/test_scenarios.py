"""What scenarios promise to those who watch them."""

from simulator import offline, scenarios
from simulator.factory import Forced, Run
from simulator.service import FORCED_IDLE_AFTER_SECS, FORCED_IDLE_SECS
from simulator.timetable import US_PER_SEC

STARTED_US = 1_795_420_001 * US_PER_SEC
FIRST_MINUTES_SECS = 600


def test_in_the_demos_first_minutes_one_machine_alone_stands_long_enough_for_an_alert() -> None:
    scenario = scenarios.build("demo")
    assert scenario.idle_soon is not None
    assert scenario.idle_alert_secs < FORCED_IDLE_SECS
    tick_us = scenario.factory.tick_us

    def on_tick(secs: float) -> int:
        return (STARTED_US + round(secs * US_PER_SEC)) // tick_us * tick_us

    idle_us = on_tick(FORCED_IDLE_AFTER_SECS), on_tick(FORCED_IDLE_AFTER_SECS + FORCED_IDLE_SECS)
    run = Run(
        factory=scenario.factory,
        origin_us=on_tick(-scenario.history_secs),
        forced=(Forced(scenario.idle_soon, *idle_us),),
    )
    standing: dict[str, int] = {}
    long: list[str] = []
    for tagged in offline.moments(run, on_tick(FIRST_MINUTES_SECS)):
        at_us = tagged.moment.at_us
        if tagged.moment.state in ("idle", "stopped"):
            standing.setdefault(tagged.machine, at_us)
        elif tagged.machine in standing:
            secs = (at_us - max(standing.pop(tagged.machine), on_tick(0))) / US_PER_SEC
            long += [tagged.machine] if secs >= scenario.idle_alert_secs else []
    assert long == [scenario.idle_soon]
    assert not standing
