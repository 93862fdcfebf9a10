"""Pictures of workflows as text: for terminals, Mermaid, Graphviz, and as SVG. Pure: from records to text.

Invariant: whatever jobs are called, a picture stays well formed: names are quoted by the rules of each format, and
their control characters never reach a terminal. A large workflow is drawn by layer, kind and state, with counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from tenure.client.layers import Edge, Graph, Node, collapsed, graph_of, with_waypoints
from tenure.client.records import Job
from tenure.model.errors import FieldViolation, InvalidInput

FORMATS = ("text", "mermaid", "dot", "svg")
MAX_NODES = 200
"""A workflow with more members is drawn collapsed."""
MAX_NAMED = 5
"""Of those that a member waits for, so many are named in text."""
COLORS = {
    "waiting": "#eceff1",
    "ready": "#fff9c4",
    "executing": "#b3e5fc",
    "restarting": "#ffe0b2",
    "completed": "#c8e6c9",
    "failed": "#ffcdd2",
    "canceled": "#e1bee7",
}
SIGNS = {
    "waiting": "○",
    "ready": "●",
    "executing": "▶",
    "restarting": "↻",
    "completed": "✓",
    "failed": "✗",
    "canceled": "⊘",
}
_BOX_WIDTH, _BOX_HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 190, 44, 70, 18, 20
_BOX_CHARS = 26


class Span(NamedTuple):
    """A part of a line; ``state`` is whose color it has."""

    text: str
    state: str = ""


def draw(jobs: Sequence[Job], format: str, *, max_nodes: int | None = MAX_NODES) -> str:
    """Return the picture of a workflow's members; None for ``max_nodes`` never collapses.

    Raises:
        InvalidInput: ``format`` is none of ``FORMATS``.
    """
    refuse_unknown_format(format)
    graph = picture_of(jobs, max_nodes=max_nodes)
    if format == "mermaid":
        return _mermaid(graph)
    if format == "dot":
        return _dot(graph)
    if format == "svg":
        return _svg(graph)
    return "".join("".join(span.text for span in line) + "\n" for line in text_lines(graph))


def refuse_unknown_format(format: str) -> None:
    """Raise InvalidInput unless a picture can be had in this format."""
    if format not in FORMATS:
        raise InvalidInput([FieldViolation("format", f"{format[:64]!r} is none of {', '.join(FORMATS)}")])


def picture_of(jobs: Sequence[Job], *, max_nodes: int | None = MAX_NODES) -> Graph:
    """Lay the members out. One that was retried is not drawn: its retry stands for it, with what depended on it."""
    stand_in = {job.id: job.retried_by for job in jobs if job.retried_by}

    def present(id: str) -> str:
        while (newer := stand_in.get(id)) is not None:
            id = newer
        return id

    graph = graph_of(
        [
            Node(
                key=job.id,
                label=job.ref or f"…{job.id[-8:]}",
                kind=job.kind,
                state=str(job.state),
                after=tuple(present(id) for id in job.depends_on),
                spawned_by=(present(job.parent_id),) if job.parent_id else (),
            )
            for job in jobs
            if not job.retried_by
        ]
    )
    return graph if max_nodes is None or len(graph.nodes) <= max_nodes else collapsed(graph)


def text_lines(graph: Graph) -> list[list[Span]]:
    """Return the lines of a picture for a terminal, layer by layer; each member names what it waits for."""
    labels = {node.key: printable(node.label) for node in graph.nodes}
    counts = {(edge.start, edge.end): edge.count for edge in graph.edges if not edge.is_spawn}
    sources: dict[str, list[str]] = {}
    for edge in graph.edges:
        if not edge.is_spawn:
            sources.setdefault(edge.end, []).append(edge.start)
    label_width = min(40, max((len(label) for label in labels.values()), default=0))
    kind_width = min(30, max((len(node.kind) for node in graph.nodes), default=0))
    lines: list[list[Span]] = []
    for number, layer in enumerate(graph.layers, 1):
        members = sum(node.count for node in layer)
        lines.append([Span(f"layer {number}: {members} {'job' if members == 1 else 'jobs'}")])
        for node in layer:
            line = [
                Span(f"  {SIGNS.get(node.state, '?')} ", node.state),
                Span(f"{labels[node.key]:<{label_width}}  {node.kind:<{kind_width}}  "),
                Span(f"{node.state:<10}", node.state),
            ]
            if names := sources.get(node.key):
                shown = [
                    labels[key] + (f" ({counts[key, node.key]})" if node.count > 1 else "") for key in names[:MAX_NAMED]
                ]
                more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
                line.append(Span(f"  after {', '.join(shown)}{more}"))
            last = line.pop()
            lines.append([*line, Span(last.text.rstrip(), last.state)])
    return lines


def printable(text: str) -> str:
    """Return text with whatever could move a terminal's cursor escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _mermaid(graph: Graph) -> str:
    ids = _short_ids(graph)
    lines = ["flowchart LR"]
    for node in graph.nodes:
        label = f"{_mermaid_text(node.label)}<br/>{_mermaid_text(_subtitle(node))}"
        lines.append(f'  {ids[node.key]}["{label}"]:::{node.state}')
    for edge in graph.edges:
        arrow = "-.->" if edge.is_spawn else "-->"
        count = f"|{edge.count}|" if edge.count > 1 else ""
        lines.append(f"  {ids[edge.start]} {arrow}{count} {ids[edge.end]}")
    states = sorted({node.state for node in graph.nodes})
    lines += [f"  classDef {state} fill:{COLORS.get(state, '#ffffff')},stroke:#607d8b,color:#000" for state in states]
    return "\n".join(lines) + "\n"


def _mermaid_text(text: str) -> str:
    """Write every character that could mean something to Mermaid by its number."""
    return "".join(c if c.isalnum() or c in " ._-,×…" else f"#{ord(c)};" for c in printable(text))


def _dot(graph: Graph) -> str:
    ids = _short_ids(graph)
    lines = [
        "digraph workflow {",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fontname="sans-serif"];',
    ]
    for node in graph.nodes:
        color = COLORS.get(node.state, "#ffffff")
        label = f"{_dot_text(node.label)}\\n{_dot_text(_subtitle(node))}"
        lines.append(f'  {ids[node.key]} [label="{label}", fillcolor="{color}"];')
    for edge in graph.edges:
        attributes = ["style=dashed"] if edge.is_spawn else []
        attributes += [f'label="{edge.count}"'] if edge.count > 1 else []
        suffix = f" [{', '.join(attributes)}]" if attributes else ""
        lines.append(f"  {ids[edge.start]} -> {ids[edge.end]}{suffix};")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_text(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')


def _svg(graph: Graph) -> str:
    layers, ways = with_waypoints(graph)
    heights = [sum(_height(node) + _GAP_Y for node in layer) - _GAP_Y for layer in layers]
    height = 2 * _MARGIN + max([_BOX_HEIGHT, *heights])
    width = 2 * _MARGIN + max(1, len(layers)) * (_BOX_WIDTH + _GAP_X) - _GAP_X
    middle: dict[str, tuple[int, int]] = {}  # of the left side
    for column, layer in enumerate(layers):
        y = (height - heights[column]) // 2
        for node in layer:
            middle[node.key] = (_MARGIN + column * (_BOX_WIDTH + _GAP_X), y + _height(node) // 2)
            y += _height(node) + _GAP_Y
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            '<path d="M0,0 L8,4 L0,8 z" fill="#607d8b"/></marker></defs>',
            *_svg_edges(ways, middle),
            *(_svg_box(node, middle[node.key][0], middle[node.key][1] - _BOX_HEIGHT // 2) for node in graph.nodes),
            "</svg>\n",
        ]
    )


def _height(node: Node) -> int:
    return 0 if node.is_waypoint else _BOX_HEIGHT


def _svg_edges(ways: Mapping[Edge, Sequence[str]], middle: Mapping[str, tuple[int, int]]) -> Iterable[str]:
    for edge, way in ways.items():
        x, y = middle[way[0]][0] + _BOX_WIDTH, middle[way[0]][1]
        path = [f"M{x},{y}"]
        for key in way[1:]:
            next_x, next_y = middle[key]
            bend = max(_GAP_X, abs(next_x - x)) // 2
            path.append(f"C{x + bend},{y} {next_x - bend},{next_y} {next_x},{next_y}")
            x, y = next_x + _BOX_WIDTH, next_y
            if key != edge.end:
                path.append(f"H{x}")
        dashes = ' stroke-dasharray="4 3"' if edge.is_spawn else ""
        yield f'<path d="{" ".join(path)}" fill="none" stroke="#607d8b"{dashes} marker-end="url(#tip)"/>'
        if edge.count > 1:
            (x1, y1), (x2, y2) = middle[way[-2]], middle[edge.end]
            at = f'x="{(x1 + _BOX_WIDTH + x2) // 2}" y="{(y1 + y2) // 2 - 4}"'
            yield f'<text {at} text-anchor="middle">{edge.count}</text>'


def _svg_box(node: Node, x: int, y: int) -> str:
    label, subtitle = printable(node.label), printable(_subtitle(node))
    middle = x + _BOX_WIDTH // 2
    return (
        f'<g class="{escape(node.state)}"><title>{escape(label)}: {escape(subtitle)}</title>'
        f'<rect x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6"'
        f' fill="{COLORS.get(node.state, "#ffffff")}" stroke="#607d8b"/>'
        f'<text x="{middle}" y="{y + 18}" text-anchor="middle" font-weight="bold">{escape(_short(label))}</text>'
        f'<text x="{middle}" y="{y + 34}" text-anchor="middle">{escape(_short(subtitle))}</text></g>'
    )


def _short(text: str) -> str:
    return text if len(text) <= _BOX_CHARS else f"{text[: _BOX_CHARS - 1]}…"


def _subtitle(node: Node) -> str:
    return node.state if node.count > 1 else f"{node.kind}, {node.state}"


def _short_ids(graph: Graph) -> dict[str, str]:
    return {node.key: f"n{index}" for index, node in enumerate(graph.nodes)}
