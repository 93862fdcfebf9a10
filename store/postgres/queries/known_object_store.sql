-- Which folder the object store is; null: not known yet.
SELECT object_store_id AS id FROM tenure.cluster
