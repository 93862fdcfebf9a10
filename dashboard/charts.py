"""Pictures that the server draws: throughput by the minute, and the attempts of a job in time. Pure: records to SVG.

Colors come from the stylesheet, by class; every picture says in words what it shows, and a table beside it says all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from markupsafe import Markup, escape

from tenure.client.overview import Figures
from tenure.client.records import Attempt, Job
from tenure.dashboard.render import shown, span

WIDTH = 960
MAX_ATTEMPTS = 30
_ROW, _TOP, _LEFT = 30, 26, 8
_SPARK_HEIGHT = 96


def minutes(figures: Sequence[Figures]) -> Markup:
    """Draw what ended in each minute: completed, failed and canceled upon each other."""
    most = max((one.ended for one in figures), default=0)
    total = sum(one.ended for one in figures)
    failed = sum(one.failed for one in figures)
    parts: list[str] = []
    step = WIDTH / max(1, len(figures))
    for place, one in enumerate(figures):
        bottom = float(_SPARK_HEIGHT)
        ago = len(figures) - 1 - place
        told = f"{ago} min ago: {one.completed:,} completed, {one.failed:,} failed, {one.canceled:,} canceled"
        bars = []
        for kind, jobs in (("completed", one.completed), ("failed", one.failed), ("canceled", one.canceled)):
            if jobs:
                height = max(2.0, jobs / most * (_SPARK_HEIGHT - 4))
                bottom -= height
                bars.append(
                    f'<rect class="{kind}" x="{place * step + 1:.1f}" y="{bottom:.1f}" width="{step - 2:.1f}"'
                    f' height="{height:.1f}"/>'
                )
        hover = f'<rect class="hover" x="{place * step:.1f}" y="0" width="{step:.1f}" height="{_SPARK_HEIGHT}"/>'
        parts.append(f"<g><title>{told}</title>{hover}{''.join(bars)}</g>")
    label = f"Jobs that ended in each of the last {len(figures)} minutes: {total:,} in all, {failed:,} failed"
    return _svg("minutes", _SPARK_HEIGHT, label, parts, stretches=True)


def timeline(job: Job, attempts: Sequence[Attempt], now: datetime) -> Markup:
    """Draw the attempts of a job from its submit on: when each began and ended, how, with which owner and fence."""
    drawn = list(attempts)[-MAX_ATTEMPTS:]
    start = job.created_at or min((one.started_at for one in drawn if one.started_at), default=now)
    end = max([job.finished_at or now, *(one.finished_at for one in drawn if one.finished_at)])
    length = max((end - start).total_seconds(), 0.001)
    scale = (WIDTH - 2 * _LEFT) / length

    def x(at: datetime) -> float:
        return _LEFT + max(0.0, (at - start).total_seconds()) * scale

    height = _TOP + _ROW * max(1, len(drawn)) + 4
    parts = list(_axis(length, height))
    before = start
    for row, one in enumerate(drawn):
        y = _TOP + row * _ROW
        began, ended = one.started_at or start, one.finished_at or (now if not job.finished_at else end)
        outcome = str(one.outcome) if one.outcome is not None else "executing"
        took = span((ended - began).total_seconds())
        words = f"attempt {one.attempt} · {outcome.replace('_', ' ')} · {took} · {one.worker} · fence {one.fence}"
        left, right = x(began), max(x(ended), x(began) + 3)
        parts.append(f'<line class="wait" x1="{x(before):.1f}" x2="{left:.1f}" y1="{y + 9}" y2="{y + 9}"/>')
        parts.append(
            f'<g><title>{escape(shown(words))}</title><rect class="bar {outcome}" x="{left:.1f}" y="{y + 2}"'
            f' width="{right - left:.1f}" height="14" rx="3"/></g>'
        )
        anchor, at = ("end", min(right, WIDTH - _LEFT)) if left > WIDTH / 2 else ("start", left)
        parts.append(f'<text x="{at:.1f}" y="{y + 27}" text-anchor="{anchor}">{escape(shown(_short(words)))}</text>')
        before = ended
    if not drawn:
        parts.append(f'<line class="wait" x1="{_LEFT}" x2="{WIDTH - _LEFT}" y1="{_TOP + 9}" y2="{_TOP + 9}"/>')
        parts.append(f'<text x="{_LEFT}" y="{_TOP + 26}">not started yet</text>')
    left_out = len(attempts) - len(drawn)
    label = f"{len(attempts)} attempts within {span(length)}" + (
        f"; the first {left_out} are not drawn" if left_out else ""
    )
    return _svg("timeline", height, label, parts)


def _axis(length_s: float, height: int) -> Iterable[str]:
    for step in range(5):
        place = _LEFT + (WIDTH - 2 * _LEFT) * step / 4
        anchor = "start" if step == 0 else "end" if step == 4 else "middle"
        yield f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="18" y2="{height}"/>'
        yield f'<text class="axis" x="{place:.1f}" y="12" text-anchor="{anchor}">{span(length_s * step / 4)}</text>'


def _short(text: str, most: int = 110) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _svg(name: str, height: int, label: str, parts: Iterable[str], *, stretches: bool = False) -> Markup:
    shape = ' preserveAspectRatio="none"' if stretches else ""
    return Markup(
        f'<svg class="chart {name}" viewBox="0 0 {WIDTH} {height}"{shape} role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
