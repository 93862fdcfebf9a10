"""The pure vocabulary and rules of tenure: no I/O, no clock reads, no imports from the rest of the project.

Everything that decides is here as a function of its arguments; the callers in ``coordinator/`` and
``worker/`` carry the decisions out.
"""
