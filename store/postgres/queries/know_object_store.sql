-- Make known which folder the object store is, unless it is known.
UPDATE tenure.cluster SET object_store_id = %(id)s WHERE object_store_id IS NULL
