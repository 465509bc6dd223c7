"""The live feed without a network: what is rendered, merged and offered."""

import asyncio
import contextlib
import json

import msgspec
import pytest

from cloud.views import Update
from dashboards.web import feed
from dashboards.web.feed import Browser, Feed, Renderer
from tests.support import small_cloud
from tests.support.small_cloud import HOUR, SHIFT

NOW = float(SHIFT + 9 * HOUR)


class CountingRenderer:
    """Renders ids and counts how often."""

    def __init__(self):
        self.tiles = 0
        self.ribbons = 0

    def renderer(self):
        return Renderer(
            tile=self._tile, line=self._line, ribbon=self._ribbon, frame=lambda board: {"shift": "s"}
        )

    def _tile(self, machine, board):
        self.tiles += 1
        return {f"m/{machine.machine}": f"{machine.state} {machine.good_units}"}

    def _line(self, line, board):
        return {f"l/{line.line}": str(line.figures["good_units"])}

    def _ribbon(self, machine, board):
        self.ribbons += 1
        return {f"r/{machine.machine}": f"{self.ribbons}"}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    with small_cloud.opened(tmp_path_factory.mktemp("cloud")) as (found, _):
        yield found


def make_feed(cloud, clock=lambda: NOW):
    counting = CountingRenderer()
    return counting, Feed(cloud, counting.renderer(), clock)


def board_of(cloud):
    """What the board shows, as of NOW."""
    return msgspec.structs.replace(cloud.board(), generated_epochtime=NOW)


def joined(live):
    browser = Browser()
    live._browsers.add(browser)
    return browser


def whole(board):
    return Update(generated_epochtime=board.generated_epochtime, whole=board)


async def test_nothing_is_rendered_while_nobody_looks(cloud):
    counting, live = make_feed(cloud)
    await live.publish(whole(board_of(cloud)))
    assert counting.tiles == 0


async def test_only_what_changed_is_sent(cloud):
    _, live = make_feed(cloud)
    browser = joined(live)
    board = board_of(cloud)
    await live.publish(whole(board))
    browser.take()
    first = board.lines[0].machines[0]
    changed = msgspec.structs.replace(first, good_units=first.good_units + 7)
    still = board.lines[0].machines[1]
    await live.publish(Update(generated_epochtime=NOW + 2, machines=[changed, still]))
    message = json.loads(browser.take())
    assert message == {
        "generated": NOW + 2,
        "fragments": {"m/filler-1": f"{first.state} {first.good_units + 7}"},
    }


async def test_an_update_is_rendered_once_for_all_browsers_and_encoded_once(cloud):
    counting, live = make_feed(cloud)
    browsers = [joined(live) for _ in range(50)]
    await live.publish(whole(board_of(cloud)))
    assert counting.tiles == 2
    assert len({id(browser.shared) for browser in browsers}) == 1


def test_a_slow_browser_gets_the_latest_of_each_fragment_only(cloud):
    browser = Browser()
    for count in range(1000):
        fragments = {f"m/{count % 3}": str(count)}
        browser.offer(float(count), fragments, feed.encode(count, fragments))
    assert json.loads(browser.take()) == {
        "generated": 999.0,
        "fragments": {"m/0": "999", "m/1": "997", "m/2": "998"},
    }
    assert browser.skipped == 999
    assert browser.waiting == {}


async def test_a_ribbon_is_drawn_again_on_a_change_of_state_and_else_rarely(cloud):
    counting, live = make_feed(cloud)
    joined(live)
    board = board_of(cloud)
    await live.publish(whole(board))
    assert counting.ribbons == 2
    await live.publish(Update(generated_epochtime=NOW + 1))
    assert counting.ribbons == 2
    first = board.lines[0].machines[0]
    stopped = msgspec.structs.replace(first, state="faulted", state_since_epochtime=NOW + 2)
    await live.publish(Update(generated_epochtime=NOW + 2, machines=[stopped]))
    assert counting.ribbons == 3
    await live.publish(Update(generated_epochtime=NOW + 21))
    assert counting.ribbons == 4


async def test_a_new_machine_makes_pages_load_anew(cloud):
    _, live = make_feed(cloud)
    browser = joined(live)
    board = board_of(cloud)
    await live.publish(whole(board))
    browser.take()
    stranger = msgspec.structs.replace(board.lines[0].machines[0], machine="robot", in_plant=False)
    await live.publish(Update(generated_epochtime=NOW + 1, machines=[stranger]))
    assert json.loads(browser.take())["reload"] is True


async def test_the_next_shift_makes_pages_load_anew_for_its_hours(cloud):
    _, live = make_feed(cloud)
    browser = joined(live)
    board = board_of(cloud)
    await live.publish(whole(board))
    browser.take()
    shift = board.shift
    following = msgspec.structs.replace(
        shift,
        name="3",
        start_epochtime=shift.end_epochtime,
        end_epochtime=shift.end_epochtime + 8 * HOUR,
    )
    counted = msgspec.structs.replace(board.lines[0].machines[0], good_units=1)
    await live.publish(Update(generated_epochtime=NOW + 1, machines=[counted], shift=following))
    assert json.loads(browser.take())["reload"] is True
    counted = msgspec.structs.replace(counted, good_units=2)
    await live.publish(Update(generated_epochtime=NOW + 99, machines=[counted]))
    assert "reload" not in json.loads(browser.take())


def test_merging_keeps_machines_of_lines_that_are_sent_without_them(cloud):
    board = board_of(cloud)
    line = msgspec.structs.replace(board.lines[0], machines=[], figures={"oee": 0.5})
    after = feed.merged(board, Update(generated_epochtime=NOW + 1, lines=[line]))
    assert after.lines[0].figures == {"oee": 0.5}
    assert after.lines[0].machines == board.lines[0].machines
    assert after.alerts == board.alerts


async def test_counts_are_sent_at_their_pace_and_a_change_of_state_at_once(cloud):
    _, live = make_feed(cloud)
    browser = joined(live)
    board = board_of(cloud)
    await live.publish(whole(board))
    browser.take()
    first, second = board.lines[0].machines[:2]
    counted = msgspec.structs.replace(first, good_units=1)
    await live.publish(Update(generated_epochtime=NOW + 1, machines=[counted]))
    assert not browser.wake.is_set()
    stopped = msgspec.structs.replace(second, state="faulted", state_since_epochtime=NOW + 1.5)
    await live.publish(Update(generated_epochtime=NOW + 1.5, machines=[stopped]))
    assert {"m/filler-1", "m/capper-1"} <= json.loads(browser.take())["fragments"].keys()


async def test_what_waits_for_its_pace_is_not_rendered_before(cloud):
    counting, live = make_feed(cloud)
    joined(live)
    board = board_of(cloud)
    await live.publish(whole(board))
    counted = msgspec.structs.replace(board.lines[0].machines[0], good_units=1)
    await live.publish(Update(generated_epochtime=NOW + 1, machines=[counted]))
    assert counting.tiles == 2
    await live.publish(Update(generated_epochtime=NOW + 2))
    assert counting.tiles == 3


async def test_many_browsers_get_counts_less_often_and_a_new_crew_at_once(cloud):
    _, live = make_feed(cloud)
    browsers = [joined(live) for _ in range(500)]
    board = board_of(cloud)
    await live.publish(whole(board))
    for browser in browsers:
        browser.take()
    counted = msgspec.structs.replace(board.lines[0].machines[0], good_units=1)
    await live.publish(Update(generated_epochtime=NOW + 4, machines=[counted]))
    assert not browsers[0].wake.is_set()
    relieved = msgspec.structs.replace(board.shift, crew="B")
    await live.publish(Update(generated_epochtime=NOW + 4.5, shift=relieved))
    told = json.loads(browsers[0].take())["fragments"]
    assert told["m/filler-1"].endswith(" 1")
    counted = msgspec.structs.replace(counted, good_units=2)
    await live.publish(Update(generated_epochtime=NOW + 9.5, machines=[counted]))
    assert browsers[0].wake.is_set()


async def test_a_board_that_cannot_be_drawn_is_tried_again_and_ends_nothing(cloud):
    counting, _ = make_feed(cloud)
    tries = []

    def broken(board):
        tries.append(board)
        if len(tries) == 1:
            raise KeyError("oee")
        return {"shift": "drawn"}

    drawing = counting.renderer()
    live = Feed(
        cloud,
        Renderer(tile=drawing.tile, line=drawing.line, ribbon=drawing.ribbon, frame=broken),
        lambda: NOW,
    )
    browser = joined(live)
    task = asyncio.create_task(live.run())
    await asyncio.wait_for(browser.wake.wait(), 30)
    assert json.loads(browser.take())["fragments"]["shift"] == "drawn"
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_sign_of_life_comes_after_silence_and_never_beside_what_is_sent(cloud, monkeypatch):
    monkeypatch.setattr(feed, "BEAT_SECS", 0.01)
    at = [NOW]
    _, live = make_feed(cloud, lambda: at[0])
    browser = joined(live)
    live._tell(NOW, {"shift": "1"})
    browser.take()
    beating = asyncio.create_task(live._beat())
    await asyncio.sleep(0.05)
    assert not browser.wake.is_set()
    at[0] += 1
    await asyncio.wait_for(browser.wake.wait(), 30)
    assert json.loads(browser.take()) == {"generated": NOW + 1}
    beating.cancel()
