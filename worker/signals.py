"""Signals: what a handler may return or raise to say how its attempt ends, other than by a result or an error."""

from __future__ import annotations

from collections.abc import Iterable

from tenure.model.dependencies import Trigger


class Reschedule(Exception):
    """Returned or raised by a handler: run this job again after ``delay_s`` seconds.

    It counts as no error, and may be repeated without end, unless ``spend_budget`` says that it is to count as one.
    """

    def __init__(self, delay_s: float, reason: str = "", *, spend_budget: bool = False) -> None:
        if not 0 <= delay_s <= 366 * 86_400:
            raise ValueError(f"delay_s is {delay_s}; it must be 0 to 31622400 seconds")
        super().__init__(reason or f"rescheduled in {delay_s:g} s")
        self.delay_s = delay_s
        self.spend_budget = spend_budget


class Park(Exception):
    """Returned or raised by a handler: run this job again when ``children``, jobs that it submitted, have ended.

    ``trigger`` says when that is; ``checkpoint`` is JSON text, None keeps what was saved before. Counts as no error.
    """

    def __init__(
        self,
        children: Iterable[str],
        *,
        checkpoint: str | None = None,
        trigger: Trigger | str = Trigger.ALL_FINISHED,
    ) -> None:
        self.children = tuple(dict.fromkeys(children))
        self.checkpoint = checkpoint
        self.trigger = Trigger(trigger)
        super().__init__(f"parked on {len(self.children)} jobs")


class Fail(Exception):
    """Returned or raised by a handler: this attempt failed; by default trying again is of no use.

    ``type`` is the error type that is recorded and that retry policies may name.
    """

    def __init__(self, message: str, *, retryable: bool = False, type: str = "Fail") -> None:
        self.message = str(message)  # what people do hand in: the exception, and its class
        super().__init__(self.message)
        self.retryable = retryable
        self.type = type if isinstance(type, str) else getattr(type, "__name__", str(type))
