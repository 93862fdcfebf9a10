"""The calls of ``AsyncClient``, in classes by what they are about; it inherits from them all.

Invariant: such a class needs nothing but the link that the client gives it, and nothing of another one.
"""
