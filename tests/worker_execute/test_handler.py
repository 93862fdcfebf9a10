"""Declaring handlers: what is accepted, what is refused and how it is said, and loading modules."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel
from tests.worker_execute import sample_handlers
from tests.worker_execute.sample_handlers import Size

from tenure.model.errors import ConfigurationError
from tenure.model.states import Outcome
from tenure.worker.context import AsyncContext, Context
from tenure.worker.handler import Mode, Registry, command_handler, define, definitions_of, handler, load
from tenure.worker.harness import Harness


def test_modes_follow_from_the_function() -> None:
    async def a() -> None: ...

    def b() -> None: ...

    assert define("a", a).mode is Mode.ASYNC
    assert define("b", b).mode is Mode.THREAD
    assert definitions_of(sample_handlers.plain)[0].mode is Mode.PROCESS
    assert command_handler("c", ["true"]).mode is Mode.COMMAND


def test_signatures() -> None:
    def payload_only(x: int) -> None: ...

    def both(x: int, c: Context) -> None: ...

    def context_only(ctx: Any) -> None: ...

    async def untyped(p, ctx): ...  # type: ignore[no-untyped-def]

    seen = {f.__name__: define("k", f) for f in (payload_only, both, context_only, untyped)}
    takes = {name: (one.takes_payload, one.takes_context) for name, one in seen.items()}
    assert takes == {
        "payload_only": (True, False),
        "both": (True, True),
        "context_only": (False, True),
        "untyped": (True, True),
    }
    assert seen["untyped"].payload is None


def test_a_type_local_to_a_function_is_resolved() -> None:
    class Local(BaseModel):
        n: int

    @handler("local")
    async def f(payload: Local, ctx: AsyncContext) -> int:
        return payload.n

    assert definitions_of(f)[0].decode('{"n": 3}') == Local(n=3)


def _bad_kind() -> object:
    return handler("bad kind!")(lambda: None)


def _too_many() -> object:
    def f(a: int, b: int, ctx: Context) -> None: ...

    return define("k", f)


def _keyword_only() -> object:
    def f(*, payload: int) -> None: ...

    return define("k", f)


def _async_thread() -> object:
    async def f() -> None: ...

    return define("k", f, mode="thread")


def _local_process() -> object:
    def f() -> None: ...

    return define("k", f, mode="process")


def _no_run() -> object:
    class NoRun: ...

    return define("k", NoRun)


def _no_type() -> object:
    def f(payload: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    return define("k", f)


def _no_payload_type() -> object:
    def f(payload: sys.__class__) -> None: ...  # type: ignore[name-defined]

    return define("k", f)


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (_bad_kind, "letters, digits"),
        (_too_many, "(a, b, ctx)"),
        (_keyword_only, "parameters are"),
        (_async_thread, "cannot run in mode 'thread'"),
        (_local_process, "local to a function"),
        (_no_run, "method run"),
        (_no_type, "Nowhere"),
        (_no_payload_type, "no type for a payload"),
        (lambda: command_handler("k", []), "argv"),
        (lambda: command_handler("k", ["a\0b"]), "argv"),
        (lambda: define("k", print, mode="fast"), "not one of"),
        (lambda: define("k", print, timeout_s=0), "timeout_s"),
    ],
)
def test_refused_with_a_reason(declare: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        declare()
    assert says in caught.value.message


def test_load_collects_functions_classes_commands_and_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("tenure_test_loaded")

    @handler("one")
    async def one() -> None: ...

    @handler("two")
    class Two:
        def run(self) -> None: ...

    vars(module).update(one=one, Two=Two, three=command_handler("three", ["true"]), also=one)
    vars(module).update(more=Registry([define("four", one)]))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert load([module.__name__]).kinds() == ["four", "one", "three", "two"]


def test_load_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "tenure_test_broken.py").write_text("raise RuntimeError('at import')")
    (tmp_path / "tenure_test_needy.py").write_text("import tenure_test_missing_dependency")
    (tmp_path / "tenure_test_empty.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, says in [
        ("tenure_test_nowhere.at_all", "is not found"),
        ("tenure_test_broken", "RuntimeError: at import"),
        ("tenure_test_needy", "needs 'tenure_test_missing_dependency'"),
        ("tenure_test_empty", "shows no handler"),
    ]:
        with pytest.raises(ConfigurationError, match=says):
            load([name])


def test_a_kind_has_one_handler() -> None:
    registry = Registry([define("k", test_modes_follow_from_the_function)])
    with pytest.raises(ConfigurationError, match="declared twice") as caught:
        registry.add(define("k", test_signatures), source="my.module")
    assert "test_signatures" in caught.value.message
    assert "my.module" in caught.value.message


async def test_a_payload_that_does_not_fit_names_the_field() -> None:
    @handler("typed")
    async def typed(payload: Size) -> int:
        return payload.width

    async with Harness() as harness:
        wrong = await harness.run(typed, {"width": "wide", "extra": 1})
        right = await harness.run(typed, {"width": "12"})
    assert wrong.outcome is Outcome.FAILED
    assert wrong.error is not None
    assert wrong.error.type == "InvalidPayload"
    assert "width: " in wrong.error.message
    assert "extra: " in wrong.error.message
    assert not wrong.ended.retryable
    assert right.result == 12


async def test_a_validator_that_raises_anything_fails_the_attempt() -> None:
    class Odd(BaseModel):
        n: int

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, build: Any) -> Any:
            from pydantic_core import core_schema

            def explode(_: Any) -> Any:
                raise RuntimeError("validator broke")

            return core_schema.no_info_plain_validator_function(explode)

    @handler("odd")
    async def odd(payload: Odd) -> None: ...

    run = await Harness().run(odd, {"n": 1})
    assert run.error is not None
    assert (run.error.type, run.error.message) == ("InvalidPayload", "payload: validator broke")


async def test_a_class_has_one_instance() -> None:
    async with Harness() as harness:
        runs = [await harness.run(sample_handlers.Counted, {"width": 1}) for _ in range(3)]
    assert [run.result[0] for run in runs] == [1, 1, 1]
    calls = [run.result[1] for run in runs]
    assert calls == [calls[0], calls[0] + 1, calls[0] + 2]
