-- How many transactions old the oldest rows of this database are.
SELECT age(datfrozenxid)::bigint FROM pg_database WHERE datname = current_database()
