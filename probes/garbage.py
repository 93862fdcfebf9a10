"""How often the interpreter looks for garbage that holds itself: seldom, where objects are made by the thousand.

By default it looks after every 700 objects more, and each job makes some dozens that live as long as a call or a
statement: a tenth of a drain's CPU went there (ADR 0025). What nobody refers to is freed at once, as ever; only cycles
wait for a look. Called by the entry points of coordinator and worker, once all modules are there.
"""

from __future__ import annotations

import gc

MORE_OBJECTS = 20_000
"""Until the next look: a few MiB of tenure's own, if all of them were garbage."""
_DEFAULT = gc.get_threshold()


def look_seldom() -> None:
    """Look for cycles less often, and never at what is there now. What a handler's module has set itself stays."""
    gc.collect()
    gc.freeze()
    if gc.get_threshold() == _DEFAULT:
        gc.set_threshold(MORE_OBJECTS, *_DEFAULT[1:])
