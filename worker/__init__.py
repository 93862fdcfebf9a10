"""The worker: takes offers, claims jobs, executes their handlers and reports. Reads like one attempt's life."""
