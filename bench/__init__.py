"""The benchmark: rates, latencies, recovery times and CPU per job on real parts, ``make bench``.

Owns how numbers are taken and kept; asserts nothing about them. Every run has its own Postgres and etcd (both with
fsync), coordinators and workers as processes of their own, and leaves none behind. Called by people, and by one smoke
test that looks at the shape of the results alone.
"""
