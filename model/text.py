"""Texts of unknown origin, for people: what could rewrite a terminal, hide, or turn text around is seen by its code.

Pure; used wherever the command line or the dashboard shows what jobs, workers or stores say.
"""

from __future__ import annotations


def visible(text: str) -> str:
    r"""Return text in which every character is seen: what is not printable as Python writes it (``\x1b``, ``\u202e``).

    Line ends and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
