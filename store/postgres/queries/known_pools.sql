-- Every pool that a worker has ever served.
SELECT path FROM tenure.pool
