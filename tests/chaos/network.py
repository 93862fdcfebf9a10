"""A network that can be cut: a bridge, and a namespace with an address of its own for each participant.

Owns: the namespaces, their links and their packet filters. Invariants: the runner sits on the bridge and is never cut;
a cut is packets dropped by the kernel, so that connections do not end but go silent, as they do when a cable is pulled;
nothing outlives ``close``, and what a killed runner left is removed by the next one (names carry its pid). Without root
or without namespaces (``why_not``) participants get loopback addresses and nothing can be cut. Who the participants are
is not known here.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_NAMESPACE = "tenure-chaos-{pid}-{name}"
_BRIDGE = "tc{pid}b"
_LINK = "tc{pid}v{number}"
_OURS = re.compile(r"^(?:tenure-chaos-(\d+)-|tc(\d+)[bv])")


@dataclass(frozen=True, slots=True)
class Rule:
    """One packet filter in one namespace, as its arguments to iptables."""

    namespace: str
    chain: str
    match: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """What ``heal`` takes back."""

    rules: tuple[Rule, ...]


class Network:
    """The participants' network. A context manager is not needed: ``close`` may be called twice."""

    def __init__(self, participants: Sequence[str]) -> None:
        self._participants = list(participants)
        self._real = not why_not()
        self._pid = os.getpid()
        self._rules: list[Rule] = []
        if self._real:
            remove_leftovers()
            self._subnet = _free_subnet()
            try:
                self._build()
            except BaseException:
                self.close()
                raise
        else:
            self._subnet = f"127.{100 + self._pid % 100}.{self._pid // 100 % 250}"

    @property
    def can_cut(self) -> bool:
        """Whether there are namespaces."""
        return self._real

    def address(self, participant: str) -> str:
        """Return a participant's address."""
        return f"{self._subnet}.{self._participants.index(participant) + 2}"

    def prefix(self, participant: str) -> list[str]:
        """Return what to put in front of a command so that it runs as that participant; it becomes the command."""
        if not self._real:
            return []
        return ["nsenter", f"--net=/run/netns/{self._namespace(participant)}", "--"]

    def cut(self, one: str, *others: str) -> Cut:
        """Drop every packet between one participant and others, both ways."""
        far = self._list(others)
        name = self._namespace(one)
        return self._add(Rule(name, "INPUT", ("-s", far)), Rule(name, "OUTPUT", ("-d", far)))

    def cut_one_way(self, senders: Sequence[str], receivers: Sequence[str]) -> Cut:
        """Drop the packets from some to others, and let their answers through."""
        far = self._list(senders)
        return self._add(*(Rule(self._namespace(one), "INPUT", ("-s", far)) for one in receivers))

    def lose(self, participants: Sequence[str], share: float) -> Cut:
        """Lose a share of the packets that participants receive, whoever sends them."""
        match = ("-i", "eth0", "-m", "statistic", "--mode", "random", "--probability", f"{share:.3f}")
        return self._add(*(Rule(self._namespace(one), "INPUT", match) for one in participants))

    def heal(self, cut: Cut) -> None:
        """Take back one cut, and leave others as they are."""
        for rule in cut.rules:
            if rule in self._rules:
                self._rules.remove(rule)
                _iptables(rule, "-D")

    def heal_all(self) -> None:
        """Take back everything."""
        self.heal(Cut(tuple(self._rules)))

    def close(self) -> None:
        """Remove it. What still runs in a namespace keeps it alive, unreachable, until it ends."""
        if self._real:
            _remove(self._pid)

    def _namespace(self, participant: str) -> str:
        return _NAMESPACE.format(pid=self._pid, name=participant)

    def _list(self, participants: Sequence[str]) -> str:
        return ",".join(self.address(one) for one in participants)

    def _add(self, *rules: Rule) -> Cut:
        for rule in rules:
            _iptables(rule, "-A")
            self._rules.append(rule)
        return Cut(rules)

    def _build(self) -> None:
        bridge = _BRIDGE.format(pid=self._pid)
        _run("ip", "link", "add", bridge, "type", "bridge")
        _run("ip", "addr", "add", f"{self._subnet}.1/24", "dev", bridge)
        _run("ip", "link", "set", bridge, "up")
        for number, participant in enumerate(self._participants):
            name, link = self._namespace(participant), _LINK.format(pid=self._pid, number=number)
            _run("ip", "netns", "add", name)
            _run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            _run("ip", "link", "set", link, "master", bridge, "up")
            _run("ip", "-n", name, "addr", "add", f"{self.address(participant)}/24", "dev", "eth0")
            _run("ip", "-n", name, "link", "set", "eth0", "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")
        if "-P FORWARD ACCEPT" not in _run("iptables", "-w", "-S", "FORWARD"):
            # Where bridged packets are filtered like routed ones (as Docker sets it up) they must be let through.
            _run("iptables", "-w", "-I", "FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT")


@functools.cache
def why_not() -> str:
    """Return why there can be no namespaces here; empty where there can."""
    if os.geteuid() != 0:
        return "not root"
    for program in ("ip", "iptables", "nsenter"):
        if shutil.which(program) is None:
            return f"no program {program}"
    probe = _NAMESPACE.format(pid=os.getpid(), name="probe")
    try:
        _run("ip", "netns", "add", probe)
        try:
            _run("nsenter", f"--net=/run/netns/{probe}", "--", "iptables", "-w", "-S", "INPUT")
        finally:
            _run("ip", "netns", "del", probe)
    except NetworkError as error:
        return str(error)
    return ""


def remove_leftovers() -> None:
    """Remove what runners left that are no more."""
    names = (*_namespaces(), *_links())
    found = (match for name in names if (match := _OURS.match(name)))
    for pid in {int(match[1] or match[2]) for match in found}:
        if not Path(f"/proc/{pid}").exists():
            _remove(pid)


class NetworkError(Exception):
    """The network cannot be set up as asked."""


def _remove(pid: int) -> None:
    for name in _namespaces():
        if name.startswith(_NAMESPACE.format(pid=pid, name="")):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
    bridge = _BRIDGE.format(pid=pid)
    forward = ["iptables", "-w", "-D", "FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT"]
    subprocess.run(forward, check=False, capture_output=True)
    # A link goes with its namespace, but that is kept for a while by whoever still runs in it.
    for link in _links():
        if link == bridge or link.startswith(_LINK.format(pid=pid, number="")):
            subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)


def _iptables(rule: Rule, action: str) -> None:
    prefix = ("nsenter", f"--net=/run/netns/{rule.namespace}", "--")
    _run(*prefix, "iptables", "-w", action, rule.chain, *rule.match, "-j", "DROP")


def _free_subnet() -> str:
    taken = _run("ip", "-o", "-4", "addr") + _run("ip", "-4", "route")
    start = os.getpid() % 250
    for number in itertools.chain(range(start, 250), range(start)):
        if f"10.213.{number}." not in taken:
            return f"10.213.{number}"
    raise NetworkError("no free subnet in 10.213.0.0/16")


def _namespaces() -> list[str]:
    folder = Path("/run/netns")
    return sorted(each.name for each in folder.iterdir()) if folder.exists() else []


def _links() -> list[str]:
    return sorted(each.name for each in Path("/sys/class/net").iterdir())


def _run(*argv: str) -> str:
    answer = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    if answer.returncode != 0:
        raise NetworkError(f"{' '.join(argv)}: {answer.stderr.strip()}")
    return answer.stdout
