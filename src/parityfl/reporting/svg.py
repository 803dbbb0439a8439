"""Figures as inline SVG: the same bytes for the same data, and colours that follow the page's theme."""

import re
from io import StringIO
from typing import Any

import matplotlib
from markupsafe import escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, FAINT, BLUE = "#23272e", "#c9ced6", "#015bf3"
"""Colours of text and axes, of grid lines, and of the first curve."""

THEMED = {"--ink": INK, "--faint": FAINT}
"""Colours that a page can set by CSS properties, so that figures follow its light or dark theme."""

STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "image.composite_image": False,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.7,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "parityfl",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": INK,
    "ytick.labelsize": 8.5,
}

_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def to_svg(figure: Figure, name: str, label: str) -> str:
    """Return a figure as an SVG element to stand in an HTML page.

    Args:
        figure: the figure.
        name: a prefix, so that ids stay distinct where several figures share a page.
        label: what a reader who cannot see the figure is told.
    """
    buffer = StringIO()
    with matplotlib.rc_context(STYLE):  # not `savefig`, which draws it once more, for nothing
        FigureCanvasSVG(figure).print_svg(buffer, metadata=_NO_METADATA)  # type: ignore[no-untyped-call]
    return _inline(buffer.getvalue(), name, label)


def _inline(text: str, name: str, label: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', text)
    text = text.replace("xlink:href", "href").replace("'DejaVu Sans'", "inherit")
    for variable, colour in THEMED.items():
        text = text.replace(colour, f"var({variable}, {colour})")
    viewbox = re.search(r'viewBox="[^"]*"', text)
    assert viewbox is not None, "matplotlib writes a viewBox"
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {viewbox[0]} role="img" aria-label="{escape(label)}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1)
