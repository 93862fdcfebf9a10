-- Drop a partition of history or attempts of which nothing is left.
SELECT tenure.drop_empty_partition() AS dropped
