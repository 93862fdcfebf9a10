"""Pictures of workflows: golden ones in ``pictures/``, drawn anew with ``UPDATE_PICTURES=1``, and what holds of any."""

from __future__ import annotations

import os
import random
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tenure.client.convert import job_from_wire
from tenure.client.drawing import FORMATS, draw, picture_of, text_lines
from tenure.client.layers import Graph, Node, collapsed, graph_of, with_waypoints
from tenure.client.records import Job
from tenure.model.errors import InvalidInput
from tenure.model.states import JobState
from tenure.v1 import job_pb2, wire

PICTURES = Path(__file__).parent / "pictures"
NASTY = 'say "hi" [it] {is} (me) <b>&amp; `x` | ; # \\ %% end\nnew\x1b[31mline é 日本 \u202e\u0000'


def job(id: str, state: str = "ready", **fields: Any) -> Job:
    return job_from_wire(job_pb2.Job(id=id, state=wire.STATE_TO_PB[JobState(state)], **{"kind": "scan", **fields}))


REPORT = [
    job("a", "completed", ref="fetch", kind="http"),
    job("b", "completed", ref="scan-1", depends_on=["a"]),
    job("c", "executing", ref="scan-2", depends_on=["a"]),
    job("d", "failed", ref="scan-3", depends_on=["a"], retried_by="e"),
    job("e", "ready", ref="scan-3", depends_on=["a"], retry_of="d"),
    job("f", "waiting", ref="report", kind="mail", depends_on=["b", "c", "d", "outside"]),
    job("00000000-0000-0000-0000-0000000000aa", "completed", kind="part", parent_id="c"),
]
NAMES = [job("a", "completed", ref=NASTY), job("b", "canceled", ref="]", kind="k", depends_on=["a"])]
STEPS = [
    job("a", "completed", ref="a"),
    job("b", "completed", ref="b", depends_on=["a"]),
    job("c", "executing", ref="c", depends_on=["b"]),
    job("d", "waiting", ref="d", depends_on=["c", "a"]),
]
LARGE = [
    job("root", "completed", ref="root", kind="plan"),
    *(job(f"s{n}", "failed" if n % 100 == 0 else "completed", depends_on=["root"]) for n in range(300)),
    job("end", "canceled", ref="end", kind="sum", depends_on=[f"s{n}" for n in range(300)]),
]
GALLERY: dict[str, list[Job]] = {"report": REPORT, "names": NAMES, "steps": STEPS, "large": LARGE, "none": []}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", GALLERY)
def test_a_picture_is_the_one_that_was_looked_at(name: str, format: str) -> None:
    golden = PICTURES / f"{name}.{ {'text': 'txt', 'mermaid': 'mmd'}.get(format, format) }"
    drawn = draw(GALLERY[name], format)
    if os.environ.get("UPDATE_PICTURES"):
        golden.write_text(drawn, encoding="utf-8")
    assert drawn == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("format", FORMATS)
def test_names_move_no_cursor_and_break_no_picture(format: str) -> None:
    drawn = draw(NAMES, format)
    assert all(c.isprintable() or c == "\n" for c in drawn)
    if format == "svg":
        texts = [element.text or "" for element in ET.fromstring(drawn).iter() if element.tag.endswith("title")]
        assert texts[0].startswith('say "hi" [it] {is} (me) <b>&amp;')
    if format == "dot":
        assert drawn.count("\n") == 3 + 2 + 1 + 1, "a name has broken a line"
    if format == "mermaid":
        [first] = [line for line in drawn.splitlines() if line.startswith("  n0[")]
        assert first.count('"') == 2 and first.count("[") == 1


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"'png' is none of"):
        draw(REPORT, "png")


def test_a_retried_member_is_stood_for_by_its_retry() -> None:
    graph = picture_of(REPORT)
    assert "d" not in {node.key for node in graph.nodes}
    assert ("e", "f") in {(edge.start, edge.end) for edge in graph.edges}


def test_the_states_of_a_line_are_what_is_colored() -> None:
    [line] = [line for line in text_lines(picture_of(REPORT)) if "scan-2" in line[min(1, len(line) - 1)].text]
    assert {span.state for span in line} == {"", "executing"}


def random_nodes(seed: int) -> list[Node]:
    """Return nodes that wait for earlier ones, and were spawned by any."""
    rng = random.Random(seed)
    nodes = []
    for number in range(rng.randint(1, 60)):
        after = tuple(str(n) for n in range(number) if rng.random() < 2 / (number + 1))
        spawned = (str(rng.randrange(60)),) if rng.random() < 0.3 else ()
        nodes.append(Node(str(number), f"job {number}", rng.choice("ab"), rng.choice(list(JobState)), after, spawned))
    rng.shuffle(nodes)
    return nodes


def layer_numbers(graph: Graph) -> dict[str, int]:
    return {node.key: number for number, layer in enumerate(graph.layers) for node in layer}


@pytest.mark.parametrize("seed", range(200))
def test_every_node_is_drawn_once_behind_those_it_waits_for(seed: int) -> None:
    nodes = random_nodes(seed)
    graph = graph_of(nodes)
    place = layer_numbers(graph)
    assert sorted(place) == sorted(node.key for node in nodes) == sorted(node.key for node in graph.nodes)
    assert all(place[edge.start] < place[edge.end] for edge in graph.edges if not edge.is_spawn)
    folded = collapsed(graph)
    assert sum(node.count for node in folded.nodes) == len(nodes)
    assert sum(edge.count for edge in folded.edges) == len(graph.edges)
    assert len(folded.layers) == len(graph.layers)


@pytest.mark.parametrize("seed", range(50))
def test_arrows_pass_between_the_boxes_of_the_layers_that_they_cross(seed: int) -> None:
    graph = graph_of(random_nodes(seed))
    layers, ways = with_waypoints(graph)
    place = {node.key: number for number, layer in enumerate(layers) for node in layer}
    boxes = [node.key for layer in layers for node in layer if not node.is_waypoint]
    assert sorted(boxes) == sorted(node.key for node in graph.nodes)
    for edge, way in ways.items():
        assert (way[0], way[-1]) == (edge.start, edge.end)
        steps = [place[key] for key in way]
        if steps[0] < steps[-1]:
            assert steps == list(range(steps[0], steps[-1] + 1))


def test_a_node_that_waits_for_what_it_has_spawned_is_behind_it() -> None:
    graph = graph_of(
        [Node("parent", "p", "k", "waiting", after=("child",)), Node("child", "c", "k", "ready", (), ("parent",))]
    )
    assert layer_numbers(graph) == {"child": 0, "parent": 1}


def test_a_long_chain_is_laid_out_without_recursion() -> None:
    nodes = [Node(str(n), str(n), "k", "ready", (str(n - 1),) if n else ()) for n in range(10_000)]
    assert len(graph_of(nodes).layers) == 10_000
