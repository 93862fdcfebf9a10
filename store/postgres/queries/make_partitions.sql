-- Partitions of history and attempts, some weeks ahead.
SELECT tenure.make_partitions(%(weeks)s)
