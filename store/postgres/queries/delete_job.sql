-- Hide a job that has ended from listings; the first time counts.
UPDATE tenure.history SET deleted_at = coalesce(deleted_at, now()) WHERE id = %(id)s RETURNING id
