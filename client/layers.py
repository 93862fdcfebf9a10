"""The shape of a picture: nodes in layers, each below those that it waits for. Pure, and knows nothing of jobs.

Invariant: a node lies in a later layer than all that its ``after`` edges come from; what a ``spawned`` edge (dashed)
comes from lies earlier only where that is possible: a node may wait for what it has spawned.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

SWEEPS = 4
"""How often the order within the layers is improved."""


@dataclass(frozen=True, slots=True)
class Node:
    """A box. ``after`` and ``spawned_by`` are keys of other nodes; ``count`` is how many things it stands for."""

    key: str
    label: str
    kind: str
    state: str
    after: tuple[str, ...] = ()
    spawned_by: tuple[str, ...] = ()
    count: int = 1

    @property
    def is_waypoint(self) -> bool:
        """Say whether it is no box, but a place where arrows pass between the boxes of a layer."""
        return self.count == 0


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow; ``count`` is how many it stands for."""

    start: str
    end: str
    is_spawn: bool = False
    count: int = 1


@dataclass(frozen=True, slots=True)
class Graph:
    """Layers of nodes, in the order in which they are to be drawn, and the arrows between them."""

    layers: tuple[tuple[Node, ...], ...]
    edges: tuple[Edge, ...]

    @property
    def nodes(self) -> list[Node]:
        """Return all nodes, layer by layer."""
        return [node for layer in self.layers for node in layer]


def graph_of(nodes: Sequence[Node]) -> Graph:
    """Lay nodes out; edges from nodes that are not there are left out."""
    known = {node.key for node in nodes}
    nodes = [
        replace(
            node,
            after=tuple(key for key in dict.fromkeys(node.after) if key in known and key != node.key),
            spawned_by=tuple(key for key in dict.fromkeys(node.spawned_by) if key in known and key != node.key),
        )
        for node in nodes
    ]
    layer_of = _layers(nodes)
    layers: list[list[Node]] = [[] for _ in range(max(layer_of.values(), default=-1) + 1)]
    for node in nodes:
        layers[layer_of[node.key]].append(node)
    edges = [Edge(start, node.key) for node in nodes for start in node.after]
    edges += [Edge(start, node.key, is_spawn=True) for node in nodes for start in node.spawned_by]
    return Graph(tuple(tuple(layer) for layer in _untangled(layers, edges)), tuple(edges))


def collapsed(graph: Graph) -> Graph:
    """Return the graph with one node for all of a layer that are of one kind and in one state."""
    group_of: dict[str, str] = {}
    counts: Counter[str] = Counter()
    layers: list[list[Node]] = []
    for number, layer in enumerate(graph.layers):
        groups: dict[tuple[str, str], str] = {}
        for node in sorted(layer, key=lambda node: (node.kind, node.state)):
            key = groups.setdefault((node.kind, node.state), f"{number}/{node.kind}/{node.state}")
            group_of[node.key] = key
            counts[key] += node.count
        layers.append([Node(key, kind, kind, state) for (kind, state), key in groups.items()])
    arrows = Counter((group_of[e.start], group_of[e.end], e.is_spawn) for e in graph.edges)
    return Graph(
        tuple(
            tuple(replace(node, label=f"{counts[node.key]} × {node.kind}", count=counts[node.key]) for node in layer)
            for layer in layers
        ),
        tuple(Edge(start, end, is_spawn, count) for (start, end, is_spawn), count in sorted(arrows.items())),
    )


def with_waypoints(graph: Graph) -> tuple[tuple[tuple[Node, ...], ...], dict[Edge, tuple[str, ...]]]:
    """Return the layers with places for arrows that pass by, and for each arrow the keys of what it touches in turn.

    Arrows from one node share their way. One that leads backwards (a spawn) goes straight.
    """
    place = {node.key: number for number, layer in enumerate(graph.layers) for node in layer}
    layers = [list(layer) for layer in graph.layers]
    ways: dict[Edge, tuple[str, ...]] = {}
    known: set[str] = set()
    hops: list[Edge] = []
    for edge in graph.edges:
        way = [edge.start]
        for number in range(place[edge.start] + 1, place[edge.end]):
            key = f"{edge.start}\n{number}"  # no key of a job has a line end
            if key not in known:
                known.add(key)
                layers[number].append(Node(key, "", "", "", count=0))
            way.append(key)
        way.append(edge.end)
        ways[edge] = tuple(way)
        hops += [Edge(start, end) for start, end in pairwise(way)]
    return tuple(tuple(layer) for layer in _untangled(layers, hops)), ways


def _layers(nodes: Sequence[Node]) -> dict[str, int]:
    """Return the layer of each node: the longest way to it. Linear; spawn edges give way where they close a circle."""
    children: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    missing: Counter[str] = Counter()
    spawns: Counter[str] = Counter()
    for node in nodes:
        for start in node.after:
            children[start].append((node.key, False))
        for start in node.spawned_by:
            children[start].append((node.key, True))
        missing[node.key] = len(node.after) + len(node.spawned_by)
        spawns[node.key] = len(node.spawned_by)
    layer = {node.key: 0 for node in nodes}
    placed: set[str] = set()
    ready = [node.key for node in nodes if not missing[node.key]]
    while len(placed) < len(nodes):
        while ready:
            key = ready.pop()
            placed.add(key)
            for child, is_spawn in children[key]:
                if child in placed:
                    continue
                layer[child] = max(layer[child], layer[key] + 1)
                missing[child] -= 1
                spawns[child] -= is_spawn
                if not missing[child]:
                    ready.append(child)
        left = [node.key for node in nodes if node.key not in placed]
        free = [key for key in left if missing[key] == spawns[key]]  # only a spawn holds it back
        ready = free[:1] or left[:1]
    return layer


def _untangled(layers: list[list[Node]], edges: Iterable[Edge]) -> list[list[Node]]:
    """Order each layer by where its neighbours stand (barycenters), forth and back."""
    before, behind = defaultdict(list), defaultdict(list)
    for edge in edges:
        before[edge.end].append(edge.start)
        behind[edge.start].append(edge.end)
    place = {node.key: float(index) for layer in layers for index, node in enumerate(layer)}
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        neighbours = before if forth else behind
        for layer in layers if forth else reversed(layers):
            heart = {
                node.key: sum(place[key] for key in near) / len(near)
                if (near := neighbours[node.key])
                else place[node.key]
                for node in layer
            }
            layer.sort(key=lambda node: heart[node.key])
            place.update((node.key, float(index)) for index, node in enumerate(layer))
    return layers
