"""Bar charts as SVG, without scripts, that read in light and in dark: one bar a row, whole or stacked from parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from tenure.bench.tables import number

WIDTH, LABELS, ROW, BAR = 900.0, 270.0, 26.0, 16.0
VALUES = 90.0
"""Room right of the longest bar."""
COLOURS = ("#3b82c4", "#e08a2e", "#4fa35f", "#c8545a", "#8d6fc0", "#8a7a63", "#cf79a8", "#7f8790")
STYLE = """
text { font: 13px sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.value, .legend { font-size: 12px }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
"""

Rows = Sequence[tuple[str, Mapping[str, float]]]
"""Label, and value by part; the parts of all rows are drawn in the order in which they first occur."""


def bars(title: str, rows: Rows, cut: float | None = None) -> str:
    """Draw a chart. What is longer than ``cut`` is broken off there, so that one bar does not dwarf the others."""
    names = list(dict.fromkeys(part for _, parts in rows for part in parts))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    top = 54.0 if len(names) > 1 else 34.0
    height = top + ROW * len(rows) + 8
    longest = max((sum(parts.values()) for _, parts in rows), default=0.0) or 1.0
    longest = min(longest, cut or longest)
    drawn = [f'<text class="title" x="4" y="20">{escape(title)}</text>']
    if len(names) > 1:
        drawn += _legend(colours)
    for index, (label, parts) in enumerate(rows):
        drawn += _row(label, parts, colours, longest, top + index * ROW)
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}">',
            f"<style>{STYLE}</style>",
            *drawn,
            "</svg>\n",
        )
    )


def _legend(colours: Mapping[str, str]) -> list[str]:
    drawn, left = [], 4.0
    for name, colour in colours.items():
        drawn.append(f'<rect x="{left:.0f}" y="32" width="11" height="11" fill="{colour}"/>')
        drawn.append(f'<text class="legend" x="{left + 15:.0f}" y="42">{escape(name)}</text>')
        left += 30 + 6.6 * len(name)
    return drawn


def _row(label: str, parts: Mapping[str, float], colours: Mapping[str, str], longest: float, top: float) -> list[str]:
    per_unit = (WIDTH - LABELS - VALUES) / longest
    left, end = LABELS, WIDTH - VALUES
    total = sum(parts.values())
    drawn = [f'<text x="{LABELS - 8:.0f}" y="{top + 13:.1f}" text-anchor="end">{escape(label)}</text>']
    for name, value in parts.items():
        told = f"<title>{escape(name)}: {number(value)}</title>"
        width = min(value * per_unit, end - left)
        place = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{BAR:g}"'
        drawn.append(f'<rect {place} fill="{colours[name]}">{told}</rect>')
        left += width
    told = number(total) if total <= longest else f"» {number(total)}"
    return [*drawn, f'<text class="value" x="{left + 6:.1f}" y="{top + 13:.1f}">{told}</text>']
