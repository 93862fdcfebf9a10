"""Writes what the explorations found into docs/spec/README.md: ``python -m tests.spec.table``.

Owns the text between the two marks; ``test_spec`` compares it with what the explorations find.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.spec.explore import Result
from tests.spec.variants import LIMITS, MUTANTS, PROTOCOL, Variant, run

README = Path(__file__).parents[2] / "docs" / "spec" / "README.md"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def row(variant: Variant, result: Result[Any]) -> str:
    """Return a variant's line in its table."""
    says = f" ({variant.says})" if variant.says and variant.expected else ""
    if result.broken is None:
        return f"| {variant.name} | {variant.says} | {result.states:,} | none |"
    return f"| {variant.name}{says} | `{result.broken}` | {len(result.trace)} | {result.states:,} |"


def _lines(results: Sequence[tuple[Variant, Result[Any]]]) -> Iterator[str]:
    found = {variant.name: (variant, result) for variant, result in results}
    yield "### The protocol\n"
    yield "| setting | what happens in it | states | violations |\n| --- | --- | ---: | --- |"
    yield from (row(*found[variant.name]) for variant in PROTOCOL)
    heading = "| violates | steps | states seen |\n| --- | --- | ---: | ---: |"
    yield f"\n### Mutants\n\n| the protocol, but {heading}"
    yield from (row(*found[variant.name]) for variant in MUTANTS)
    yield f"\n### What the protocol cannot promise\n\n| what | {heading.removeprefix('| ')}"
    yield from (row(*found[variant.name]) for variant in LIMITS)
    yield "\n### The shortest traces\n"
    for variant in (*MUTANTS, *LIMITS):
        _, result = found[variant.name]
        yield f"**{variant.name[0].upper()}{variant.name[1:]}** violates `{result.broken}`:\n\n```"
        yield from (f"{number:2}. {label}" for number, label in enumerate(result.trace, 1))
        yield "```\n"


def main() -> None:
    """Explore everything and rewrite the generated part."""
    results = [(variant, run(variant)) for variant in (*PROTOCOL, *MUTANTS, *LIMITS)]
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{chr(10).join(_lines(results))}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
