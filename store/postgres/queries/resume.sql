-- Let it start again.
DELETE FROM tenure.pause WHERE subject = %(subject)s AND name = %(name)s RETURNING name
