"""The peers: other job systems, measured beside tenure on the same machine in the same run.

Owns how each is installed, set up and asked. Invariants: a peer is installed by the ordinary clients of its language,
at the release that ``versions.toml`` pins, into a git-ignored folder of its own; it is set up as its documentation
recommends for throughput; what cannot be installed is left out with its reason. Called by ``tenure.bench.comparison``
alone; measures nothing itself.
"""
