"""How what pydantic found is told to people: as the rest of a sentence that begins with the field's name.

Pydantic's own texts speak of inputs and of Python's types. Called wherever its errors leave the process; typer's
newer releases speak its words, too.
"""

from __future__ import annotations

import re

_WHOLE = {
    "Field required": "is missing",
    "Extra inputs are not permitted": "is not known here",
    r"String should match pattern '^[^\x00-\x1f\x7f]*$'": "must not contain control characters",
}
_PARTS = (
    (re.compile(r"^(?:Value error|Assertion failed), "), ""),
    (re.compile(r"^[A-Z]\w* should (?=be |have )"), "must "),
    (re.compile(r", unable to parse string as an? \w+$|, got a number with a fractional part$"), ""),
    (re.compile(r" after validation(?=, not \d+$)"), ""),
    (re.compile(r"\bgreater than or equal to\b"), "at least"),
    (re.compile(r"\bless than or equal to\b"), "at most"),
    (re.compile(r"\bgreater than\b"), "more than"),
    (re.compile(r"\ba valid integer\b"), "a whole number"),
    (re.compile(r"\ba valid string\b"), "a text"),
    (re.compile(r"\ba valid (number|list)\b"), r"a \1"),
    (re.compile(r"\ba valid (?:dictionary or object to extract fields from|dictionary)\b"), "an object"),
    (re.compile(r"\ba valid boolean\b"), "true or false"),
)


def sentence(message: str) -> str:
    """Return pydantic's message as it reads after the name of a field: "must be at most 1000"."""
    if message in _WHOLE:
        return _WHOLE[message]
    for pattern, words in _PARTS:
        message = pattern.sub(words, message)
    return message
