"""Tables are sorted by their columns, in a real browser."""

import asyncio
from pathlib import Path

import pytest
from browser import CHROMIUM, showing, shows

import parityfl.reporting

SCRIPT = Path(parityfl.reporting.__file__).parent / "templates" / "sort.js"
CELLS = ["1.000", "< 0.001", "–", "> 30", "-0.5 ± 0.1", "mine"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no browser here")


def test_numbers_come_first_and_bounds_stand_where_they_belong(tmp_path: Path) -> None:
    rows = "".join(f"<tr><td>{cell.replace('<', '&lt;')}</td></tr>" for cell in CELLS)
    table = f"<table class=sortable><thead><tr><th><button>p</button></th></tr></thead><tbody>{rows}</tbody></table>"
    page = tmp_path / "page.html"
    page.write_text(f"<meta charset=utf-8>{table}<script>{SCRIPT.read_text(encoding='utf-8')}</script>")
    cells = "[...document.querySelectorAll('td')].map(cell => cell.textContent)"

    async def main() -> None:
        async with showing(page.as_uri()) as shown:
            await shows(shown, cells, CELLS)
            await shown("document.querySelector('button').click()")
            await shows(shown, cells, ["-0.5 ± 0.1", "< 0.001", "1.000", "> 30", "–", "mine"])

    asyncio.run(asyncio.wait_for(main(), 60))
