"""What ``tenure doctor`` says about clocks. Leases do not depend on them; what people read and schedules do.

A clock that is read over HTTP is told in whole seconds, so a difference counts only beyond that and half the time that
the answer took.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tenure.cli.findings import Finding, Level

WARN_S = 2.0
FAIL_S = 60.0


@dataclass(frozen=True, slots=True)
class Clock:
    """What one clock said, and what ours said halfway through asking."""

    whose: str
    theirs: datetime
    ours: datetime
    took_s: float
    resolution_s: float = 0.0

    @property
    def off_s(self) -> float:
        """How far it is off for certain: behind ours if negative."""
        difference = (self.theirs - self.ours).total_seconds()
        slack = self.resolution_s + self.took_s / 2
        if difference > 0:
            return max(difference - slack, 0.0)
        return min(difference + slack, 0.0)


def judge(clocks: list[Clock]) -> list[Finding]:
    """Say which clocks differ from that of this machine, and so from each other."""
    if not clocks:
        return []
    why = "times in listings, logs and retention come from these clocks, and schedules fire by Postgres's"
    step = "make every host follow the same time server (chrony, systemd-timesyncd)"
    findings = []
    for clock in clocks:
        off_s = clock.off_s
        if abs(off_s) >= WARN_S:
            level = Level.FAIL if abs(off_s) >= FAIL_S else Level.WARN
            told = f"{clock.whose} is {abs(off_s):.1f} s {'ahead of' if off_s > 0 else 'behind'} this machine"
            findings.append(Finding(level, "clocks", told, step, why, "clocks"))
    if findings:
        return findings
    return [Finding(Level.OK, "clocks", f"{', '.join(c.whose for c in clocks)}: as this machine's", check="clocks")]
