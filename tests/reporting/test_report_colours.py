"""Contrasts as WCAG 2 defines them: 3 or more for what is drawn, 4.5 or more for what is read."""

import re
from importlib.resources import files

import pytest
from matplotlib.colors import to_hex, to_rgb

from parityfl.reporting.drawing import GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION
from parityfl.reporting.run_figures import AVAILABILITY_COLOURS
from parityfl.reporting.svg import BLUE

STYLES = (files("parityfl.reporting") / "templates" / "report.css").read_text(encoding="utf-8")
BLOCKS = re.findall(r":root \{(.*?)\}", STYLES, re.DOTALL)
THEMES = [dict(re.findall(r"(--[\w-]+): (#\w{6});", block)) for block in BLOCKS]
DATA = [BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY, *map(to_hex, AVAILABILITY_COLOURS(range(256)))]


def luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def test_black_on_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("theme", THEMES, ids=["light", "dark"])
def test_what_is_drawn_stands_out_from_the_page_in_both_themes(theme: dict[str, str]) -> None:
    assert [colour for colour in DATA if contrast(colour, theme["--page"]) < 3] == []


@pytest.mark.parametrize("theme", THEMES, ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["--page", "--panel"])
def test_what_is_written_can_be_read_in_both_themes(theme: dict[str, str], ground: str) -> None:
    texts = ("--ink", "--muted", "--accent", "--behind")
    assert [text for text in texts if contrast(theme[text], theme[ground]) < 4.5] == []
