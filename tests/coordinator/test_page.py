"""The page as a browser shows it."""

from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from browser import CHROMIUM, showing, shows
from test_coordinator_app import Rig, closed_round, coordinating

from network import LAYOUT, WEIGHTS, run
from parityfl.coordinator.events import KEPT
from parityfl.coordinator.finished import Finished

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no browser here")

STATUS = "document.getElementById('status').textContent"


def began(rig: Rig, rounds: int) -> None:
    """Begin the rounds with whoever is here."""
    rig.coordinator.begin()
    rig.coordinator.started(WEIGHTS, 0, rounds)


def figure(label: str) -> str:
    """Return the expression for what stands under a figure's label."""
    found = f"[...document.querySelectorAll('.figure')].find(f => f.textContent.startsWith('{label}'))"
    return f"{found}?.children[1].textContent"


def cells(column: str) -> str:
    """Return the expression for a column of the devices' table."""
    heads = "[...document.querySelectorAll('#devices th')].map(head => head.textContent)"
    rows = "[...document.querySelectorAll('#devices tbody tr')]"
    return f"{rows}.map(row => row.children[{heads}.indexOf('{column}')].textContent)"


def test_a_page_that_is_opened_late_in_a_long_run_knows_how_long_it_is() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            began(rig, 5000)
            closed = closed_round(1)
            for number in range(1, KEPT + 3):
                record = replace(closed.record, round=number)
                rig.coordinator.round_closed(replace(closed, record=record, figures={"round": number}))
            async with showing(str(rig.http.base_url)) as page:
                await shows(page, STATUS, f"training, round {KEPT + 2} of 5000")

    run(main())


def test_a_page_that_is_open_for_long_keeps_the_latest_rounds() -> None:
    """Of 1,200 rounds it has the latest 1,000, from 201 on, and shows the latest 200."""

    async def main() -> None:
        async with coordinating() as rig:
            began(rig, 5000)
            closed = closed_round(1)
            async with showing(str(rig.http.base_url)) as page:
                for last in (600, 1200):
                    for number in range(last - 599, last + 1):
                        record = replace(closed.record, round=number)
                        rig.coordinator.round_closed(replace(closed, record=record, figures={"round": number}))
                    await shows(page, STATUS, f"training, round {last} of 5000")
                await shows(page, "[rounds.size, rounds.keys().next().value]", [KEPT, 201])
                rows = "[...document.querySelectorAll('#rounds tbody tr')].map(row => row.firstChild.textContent)"
                await shows(page, f"[{rows}.length, {rows}[0], {rows}.at(-1)]", [200, "1200", "1001"])

    run(main())


def test_a_figure_is_the_last_that_is_known() -> None:
    """Accuracy is measured in round 1 only, the variation of utility in neither; three devices are there in both."""

    async def main() -> None:
        async with coordinating() as rig:
            began(rig, 3)
            rig.coordinator.round_closed(closed_round(1))
            second = closed_round(2)
            figures = {**second.figures, "global_accuracy": float("nan"), "num_available": 0}
            rig.coordinator.round_closed(replace(second, figures=figures))
            async with showing(str(rig.http.base_url)) as page:
                await shows(page, STATUS, "training, round 2 of 3")
                await shows(page, figure("accuracy on the test set"), "0.2500")
                await shows(page, figure("variation of utility per opportunity"), "–")
                await shows(page, figure("devices available"), "0")

    run(main())


def test_who_is_left_behind_is_in_the_table_and_counted_in_words() -> None:
    """h1 is always late, h2 never selected, and h3 never available: see `closed_round`."""

    async def main() -> None:
        async with coordinating() as rig:
            await rig.register("h0")
            await rig.register("h2")
            began(rig, 9)
            for number in range(1, 9):
                rig.coordinator.round_closed(closed_round(number))
            async with showing(str(rig.http.base_url)) as page:
                await shows(page, cells("left behind"), ["", "never selected"])
                await shows(page, STATUS, "training, round 8 of 9; 1 device is left behind (1 never selected)")
                await rig.register("h1")
                words = "2 devices are left behind (1 never completed a round, 1 never selected)"
                await shows(page, STATUS, f"training, round 8 of 9; {words}")

    run(main())


def test_how_little_the_less_served_half_has() -> None:
    """Utilities 0.5, 0, 0 and unknown: the Lorenz curve is 0, 0, 0, 1, and in its middle 0."""

    async def main() -> None:
        async with coordinating() as rig:
            for name in ("h0", "h1", "h2", "h3"):
                await rig.register(name)
            began(rig, 9)
            async with showing(str(rig.http.base_url)) as page:
                share = figure("share of utility of the less served half")
                await shows(page, share, "–")
                rig.coordinator.round_closed(closed_round(1))
                await shows(page, share, "0")
                await shows(page, "half([0, 0.1, 0.3, 1])", 0.2)
                await shows(page, "half([0, 0.2, 1])", 0.2)
                await shows(page, cells("rounds since it took part"), ["0", "", "", ""])

    run(main())


def test_a_run_that_was_done_before_shows_how_it_ended() -> None:
    async def main() -> None:
        async with coordinating() as rig:
            figures = {"round": 7, "global_accuracy": 0.75, "utility_cv": float("nan")}
            rig.coordinator.recall(Finished(LAYOUT, WEIGHTS, 7, figures))
            rig.coordinator.finish("done")
            async with showing(str(rig.http.base_url)) as page:
                await shows(page, STATUS, "done, round 7 of 7")
                await shows(page, figure("accuracy on the test set"), "0.7500")

    run(main())


def test_a_coordinator_that_is_gone_is_told_with_when_it_was_last_heard_and_one_that_is_back_is_followed() -> None:
    async def main() -> None:
        async with AsyncExitStack() as browsers:
            async with coordinating() as rig:
                began(rig, 3)
                rig.coordinator.round_closed(closed_round(1))
                url = rig.http.base_url
                page = await browsers.enter_async_context(showing(str(url)))
                await shows(page, STATUS, "training, round 1 of 3")
            lost = r"/^connection lost, last heard at \d.*:\d\d.*; then training, round 1 of 3$/"
            await shows(page, f"{lost}.test({STATUS})", True)
            async with coordinating(port=url.port or 0) as rig:
                await shows(page, STATUS, "waiting for devices: 0 of 2 devices are here")
                began(rig, 5)
                await shows(page, STATUS, "training, round 0 of 5")
                rig.coordinator.round_closed(closed_round(1))
                await shows(page, STATUS, "training, round 1 of 5")

    run(main())


def test_one_that_has_ended_its_run_may_go() -> None:
    async def main() -> None:
        async with AsyncExitStack() as browsers:
            async with coordinating() as rig:
                began(rig, 3)
                page = await browsers.enter_async_context(showing(str(rig.http.base_url)))
                await shows(page, STATUS, "training, round 0 of 3")
                rig.coordinator.finish("stopped", "interrupted")
                await shows(page, STATUS, "stopped: interrupted, round 0 of 3")
            await page("ask('health').catch(look).then(() => { window.gone = true; })")
            await shows(page, "window.gone", True)
            assert await page(STATUS) == "stopped: interrupted, round 0 of 3"

    run(main())


def test_a_curve_tells_its_range_and_makes_no_step_of_a_last_digit() -> None:
    """1 and 1 + 2e-16 are a flat line in the middle, at 15 of 30; 0.2 and 0.4 go from the bottom to the top."""

    async def main() -> None:
        async with coordinating() as rig:
            began(rig, 3)
            for number, ratio, accuracy in ((1, 1.0, 0.2), (2, 1.0 + 2**-52, 0.4)):
                figures = {"round": number, "credited_to_net": ratio, "global_accuracy": accuracy}
                rig.coordinator.round_closed(replace(closed_round(number), figures=figures))
            async with showing(str(rig.http.base_url)) as page:
                await shows(page, figure("utility credited over gain kept"), "1")
                shown = "[...document.querySelectorAll('.figure')].map(box => box.querySelector('{}'){})"
                await shows(page, shown.format("small", "?.textContent") + "[0]", "0.2000 to 0.4000")
                await shows(page, shown.format("small", "?.textContent") + "[5]", "1 to 1")
                heights = shown.format("path", "?.getAttribute('d').match(/[^,]+(?=L|$)/g).map(Number)")
                await shows(page, f"{heights}[0].map(Math.round)", [29, 1])
                await shows(page, f"{heights}[5].map(Math.round)", [15, 15])

    run(main())


def test_tables_have_headings_in_words_and_say_where_they_go_on() -> None:
    """In the browser's 800 pixels the rounds' 14 columns go on to the right, with the most important to the left."""

    async def main() -> None:
        async with coordinating() as rig:
            await rig.register("h0")
            began(rig, 3)
            rig.coordinator.round_closed(closed_round(1))
            async with showing(str(rig.http.base_url)) as page:
                heads = "[...document.querySelectorAll('th')].map(head => head.textContent)"
                await shows(page, f"{heads}.slice(0, 3)", ["round", "test accuracy", "worst tenth"])
                await shows(page, f"{heads}.some(head => head.includes('_'))", False)
                await shows(page, "document.querySelector('h2 small').hidden", False)
                await page("document.body.style.width = '1200px'; draw()")
                await shows(page, "document.querySelector('h2 small').hidden", True)
                await shows(page, cells("state") + "[0] !== ''", True)
                left = "getComputedStyle(document.querySelector('#devices td.words')).textAlign"
                await shows(page, left, "left")

    run(main())
