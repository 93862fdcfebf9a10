"""The coordinator: serves gRPC and HTTP, and alone touches Postgres. Reads like the flow of a job.

submit -> dispatch -> (a worker claims) -> start -> (it runs) -> finish -> announce; reap for those that vanish.
"""
