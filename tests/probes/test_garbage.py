"""Cycles are looked for seldom, yet looked for; what somebody else has set stays."""

from __future__ import annotations

import subprocess
import sys

FREED = """
import gc, weakref
from tenure.probes.garbage import MORE_OBJECTS, look_seldom
default = gc.get_threshold()
look_seldom()
assert gc.get_threshold() == (MORE_OBJECTS, *default[1:]) and gc.get_freeze_count()
class Own: pass
first = Own()
first.itself = first
seen = weakref.ref(first)
del first
kept = []
for _ in range(MORE_OBJECTS // 2):
    kept.append([])
assert seen() is not None, "it looked early"
for _ in range(MORE_OBJECTS):
    kept.append([])
assert seen() is None, "it did not look"
"""
OWN = """
import gc
from tenure.probes.garbage import look_seldom
gc.set_threshold(123, 4, 5)
look_seldom()
assert gc.get_threshold() == (123, 4, 5)
"""


def _run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_cycles_are_freed_after_thousands_of_objects_more() -> None:
    _run(FREED)


def test_what_a_handlers_module_has_set_stays() -> None:
    _run(OWN)
