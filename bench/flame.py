"""Flame graphs: where a process was seen, as an SVG without scripts that reads in light and in dark.

A box is a function, as wide as its share of the samples; upon it stand those that it called, in alphabetical order, so
that equal stacks lie together. A pointer that rests on a box is told its name and share.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape

from tenure.bench.steps import Profile

WIDTH, ROW, MARGIN = 1_200.0, 17.0, 10.0
NARROWEST = 0.5
"""Boxes below this width are left out: nobody could see them."""
LETTER = 6.4
STYLE = """
text { font: 11px ui-monospace, monospace; fill: #1f2328 }
.title { font: 15px sans-serif }
rect { stroke: #fff; stroke-width: 0.5 }
@media (prefers-color-scheme: dark) { .title { fill: #e6edf3 } rect { stroke: #0d1117 } }
"""


@dataclass(slots=True)
class _Box:
    samples: int = 0
    above: dict[str, _Box] = field(default_factory=dict)


def flame_graph(title: str, profile: Profile) -> str:
    """Draw a process."""
    root = _Box()
    for stack, count in profile.samples.items():
        box = root
        box.samples += count
        for frame in stack:
            box = box.above.setdefault(frame, _Box())
            box.samples += count
    drawn = list(_boxes(root.above, 0.0, WIDTH / max(1, root.samples), 0))
    rows = 1 + max((row for *_, row in drawn), default=0)
    height = rows * ROW + 40
    parts = [_draw(frame, left, width, height - MARGIN - (row + 1) * ROW) for frame, left, width, row in drawn]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}">',
            f"<style>{STYLE}</style>",
            f'<text class="title" x="4" y="18">{escape(title)}: {root.samples:,} samples</text>',
            *parts,
            "</svg>\n",
        )
    )


def _boxes(
    above: Mapping[str, _Box], left: float, per_sample: float, row: int
) -> Iterator[tuple[str, float, float, int]]:
    """Yield the name, left edge, width and row of each box that can be seen."""
    for frame, box in sorted(above.items()):
        width = box.samples * per_sample
        if width >= NARROWEST:
            yield frame, left, width, row
            yield from _boxes(box.above, left, per_sample, row + 1)
        left += width


def _draw(frame: str, left: float, width: float, top: float) -> str:
    told = f"{escape(frame)}, {width / WIDTH:.1%}"
    letters = int((width - 4) / LETTER)
    label = f'<text x="{left + 2:.1f}" y="{top + 12:.1f}">{escape(frame[:letters])}</text>' if letters > 3 else ""
    box = f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{ROW:g}" fill="{_colour(frame)}"/>'
    return f"<g><title>{told}</title>{box}{label}</g>"


def _colour(frame: str) -> str:
    """Return a warm colour, the same for the functions of one file."""
    chance = zlib.crc32(frame.rpartition("(")[2].encode())
    return f"hsl({10 + chance % 45} 85% {62 + chance // 64 % 12}%)"
