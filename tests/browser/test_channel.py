"""The page The channel in a real Chromium, over the running demo."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

from tests.demo import start_demo

from .conftest import SCREENSHOTS

pytestmark = [pytest.mark.browser, pytest.mark.sqlite]

PICTURE = Path(__file__).parents[2] / "docs" / "img" / "channel.png"
PHONE = {"width": 390, "height": 844}
MILLISECONDS = re.compile(r"^[\d,.]+ ms$")


def expect(target):
    from playwright.sync_api import expect as playwright_expect

    playwright_expect.set_options(timeout=60_000)  # a loaded machine, never a wait for luck
    return playwright_expect(target)


def commit(page, name):
    page.get_by_label("Event name").fill(name)
    page.get_by_role("button", name="Commit").click()
    expect(page.locator("#journeys li").first).to_contain_text(name)


def rows(page, place):
    return int(page.locator(f"td[data-text={place}]").inner_text().replace(",", ""))


def test_an_event_shows_its_travel_time_and_is_counted_in_both_stores(open_page):
    page = open_page()
    before = rows(page, "source_rows")
    commit(page, "Counted Twice")
    expect(page.locator("#travel")).to_have_text(MILLISECONDS)
    expect(page.locator("#journeys li").first).to_contain_text("✓")
    for place in ("source_rows", "replica_rows"):
        expect(page.locator(f"td[data-text={place}]")).to_have_text(f"{before + 1:,}")


def test_another_open_page_sees_the_event_arrive(open_page):
    page, other = open_page(), open_page()
    expect(other.locator("#link")).to_have_text("live")
    commit(page, "Seen Elsewhere")
    expect(other.locator("#journeys li").first).to_contain_text("Seen Elsewhere")


def test_an_event_that_exists_is_refused_in_words(open_page):
    page = open_page()
    for _ in range(2):
        page.get_by_label("Date").fill("2026-01-05")
        page.get_by_label("Time").fill("08:30:00")
        page.get_by_label("Event name").fill("Only Once")
        page.get_by_role("button", name="Commit").click()
        expect(page.locator("#write [aria-disabled]")).to_have_count(0)
    expect(page.locator("[data-errors=__all__]")).to_contain_text("already exists")


def test_a_field_that_is_wrong_is_marked_and_gets_the_focus(open_page):
    page = open_page()
    page.locator("#write form").evaluate("form => form.noValidate = true")
    page.get_by_label("Event name").fill("")
    page.get_by_role("button", name="Commit").click()
    field = page.get_by_label("Event name")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(page.locator("#id_event_name_error")).to_contain_text("required")


def test_every_race_ends_with_a_tick_and_two_times(open_page):
    page = open_page()
    page.get_by_role("button", name="Race them all").click()
    contests = page.locator(".contest")
    for number in range(contests.count()):
        contest = contests.nth(number)
        expect(contest).to_have_attribute("data-equal", "true")
        expect(contest.locator("[data-part=tick]")).to_have_text("✓")
        expect(contest.locator("[data-part=verdict]")).to_contain_text("faster")
        for lane in ("source", "replica"):
            expect(contest.locator(f"[data-part={lane}]")).to_have_text(MILLISECONDS)


def test_a_deleted_replica_is_rebuilt_and_verified(open_page):
    page = open_page()
    work = page.locator("#work")
    page.get_by_role("button", name="Delete the replica").click()
    expect(work).to_contain_text("The replica is gone")
    expect(page.locator(".seal")).to_have_text("no replica")
    expect(page.locator("body")).to_have_attribute("data-present", "false")

    commit(page, "Written Meanwhile")
    expect(page.locator("#journeys li").first).to_contain_text("waits there for a replica")
    page.get_by_role("button", name="Race: One event by its primary key").click()
    expect(page.locator("#race-key [data-part=verdict]")).to_contain_text("no replica")

    page.get_by_role("button", name="Rebuild").click()
    expect(work).to_contain_text("verified ✓")
    expect(page.locator(".seal")).to_have_text("verified ✓")
    expect(page.locator("body")).to_have_attribute("data-present", "true")
    assert rows(page, "source_rows") == rows(page, "replica_rows")


def test_verify_names_the_position_it_was_taken_at(open_page):
    page = open_page()
    page.get_by_role("button", name="Verify").click()
    expect(page.locator("#work")).to_contain_text("rows equal")
    expect(page.locator("td small")).to_contain_text("at position")


@pytest.mark.parametrize("width", [320, 390])
def test_nothing_is_wider_than_a_phone(open_page, width):
    page = open_page(viewport={"width": width, "height": 700}, has_touch=True)
    page.get_by_role("button", name="Race: Releases by country and year").click()
    expect(page.locator("#race-years")).to_have_attribute("data-equal", "true")
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".drawing.tall").is_visible()
    assert not page.locator(".drawing.wide").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_in_dark(open_page, scheme):
    """WCAG AA asks for 4.5; every text colour the page uses is measured on its ground."""
    page = open_page(color_scheme=scheme)
    ground = luminance(page.locator("body"), "backgroundColor")
    assert ground > 0.8 if scheme == "light" else ground < 0.05
    for selector in ("body", ".lede", "h1 em", ".link", "label", "td small", ".travel-time"):
        assert contrast(luminance(page.locator(selector).first, "color"), ground) >= 4.5, selector
    for selector in (".seal", "button.primary"):
        place = page.locator(selector).first
        inside = luminance(place, "backgroundColor")
        assert contrast(luminance(place, "color"), inside) >= 4.5, selector
    hill = luminance(page.locator(".wide .hill.near"), "fill")
    for selector in (".proof-mark", ".movers text", ".place"):
        text = luminance(page.locator(f".wide {selector}").last, "fill")
        assert contrast(text, hill) >= 4.5, selector


def luminance(place, css_property):
    """Return the relative luminance (0 to 1) of a colour of `place`, as WCAG defines it."""
    text = place.evaluate(f"element => getComputedStyle(element).{css_property}")
    channels = [int(each) / 255 for each in re.findall(r"\d+", text)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_everything_can_be_done_by_keyboard_alone(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the form")).to_be_focused()
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_label("Event name"))
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Control+A")
    page.keyboard.type("By Keyboard")
    page.keyboard.press("Enter")
    expect(page.locator("#journeys li").first).to_contain_text("By Keyboard")

    tab_to(page, page.get_by_role("button", name="Race: Releases by country and year"))
    page.keyboard.press("Enter")
    expect(page.locator("#race-years")).to_have_attribute("data-equal", "true")

    tab_to(page, page.get_by_role("button", name="Verify"))
    page.keyboard.press("Space")
    expect(page.locator("#work")).to_contain_text("rows equal")
    expect(page.get_by_role("button", name="Verify")).to_be_focused()
    expect(page.get_by_role("button", name="Verify")).not_to_have_attribute("aria-disabled", "true")


def tab_to(page, target):
    """Press Tab until `target` has the focus; a page whose order never leads there fails."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    pytest.fail("the Tab key does not lead there")


def test_results_are_said_to_a_screen_reader(open_page):
    page = open_page()
    announcer = page.get_by_role("status")
    expect(announcer).to_have_attribute("aria-live", "polite")
    commit(page, "Said Aloud")
    expect(announcer).to_contain_text("Said Aloud")
    page.get_by_role("button", name="Race: One day of the calendar, by index").click()
    expect(announcer).to_contain_text("answers equal")


def test_nothing_moves_for_who_asked_for_less_motion(open_page):
    still = open_page(reduced_motion="reduce")
    assert glint(still) == "none"
    moving = open_page(reduced_motion="no-preference")
    assert glint(moving) == "flow"
    commit(moving, "On Its Way")
    expect(moving.locator(".drawing.wide .drop.runs")).to_have_count(1)
    expect(moving.locator(".drop.runs")).to_have_count(0)


def glint(page):
    return page.locator(".glint").first.evaluate("each => getComputedStyle(each).animationName")


def test_without_scripts_the_forms_answer_with_the_page(open_page):
    page = open_page(java_script_enabled=False)
    page.get_by_label("Event name").fill("Without Scripts")
    page.get_by_role("button", name="Commit").click()
    expect(page.locator("#journeys")).to_contain_text("Without Scripts")
    expect(page.locator("#travel")).to_have_text(MILLISECONDS)
    page.get_by_role("button", name="Race: Releases by country and year").click()
    expect(page.locator("#race-years .tick")).to_have_text("✓")
    page.get_by_role("button", name="Rebuild").click()
    expect(page.locator("#work")).to_contain_text("verified ✓")


def test_a_page_that_lost_its_server_catches_up_by_itself(open_page):
    """The stream ends when the page goes into the back/forward cache or a proxy cuts it."""
    page = open_page()
    expect(page.locator("#link")).to_have_text("live")
    page.context.set_offline(True)
    page.context.set_offline(False)
    commit(page, "After The Gap")
    expect(page.locator("#link")).to_have_text("live")


@pytest.mark.skipif(not SCREENSHOTS, reason="LEVADA_SCREENSHOTS=1 makes the picture of the README")
def test_the_picture_of_the_readme(open_page):
    page = open_page(viewport={"width": 1200, "height": 1080}, device_scale_factor=1.5)
    commit(page, "Madeira Wine Exports")
    commit(page, "Madeira Banana Harvest")
    page.get_by_role("button", name="Race them all").click()
    expect(page.locator("[data-race-all]")).not_to_have_attribute("aria-disabled", "true")
    page.get_by_role("button", name="Verify").click()
    expect(page.locator("#work")).to_contain_text("rows equal")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    height = page.locator("#lose").evaluate("each => each.getBoundingClientRect().top + scrollY")
    page.screenshot(
        path=PICTURE,
        full_page=True,
        clip={"x": 0, "y": 0, "width": 1200, "height": height - 20},
    )


def test_ctrl_c_stops_all_of_it_with_a_page_open_and_a_second_run_goes_on(browser, tmp_path):
    with contextlib.ExitStack() as stack:
        first = start_demo(tmp_path, 500)
        stack.callback(first.kill)
        context = browser.new_context()
        stack.callback(context.close)
        page = context.new_page()
        page.goto(first.url)
        expect(page.locator("#link")).to_have_text("live")
        before = rows(page, "source_rows")
        commit(page, "Kept Over A Restart")
        status, rest = first.stop()
        assert (status, "Stopped" in rest) == (0, True)
        assert "Traceback" not in rest

        second = start_demo(tmp_path, 500)
        stack.callback(second.kill)
        assert "500 synthetic events are there already" in second.output
        assert f"{before + 1:,}" in second.output
        assert "verified ✓" in second.output
        assert second.stop()[0] == 0
