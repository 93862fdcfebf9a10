"""The built-in kinds, which every worker can serve: noop, sleep, http, and command where the worker allows it."""
