"""What runs inside each peer's own environment: one program a peer, spoken to in lines of JSON.

``speak.py`` and ``speak.mjs`` are what is started; they load the peer's module by name. Nothing here imports tenure.
"""
