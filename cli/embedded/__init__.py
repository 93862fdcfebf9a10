"""The embedded default: a real Postgres and a real etcd as child processes, and a whole deployment on top of them.

For trying out, for tests and for the demo. Production runs its own stores.
"""
