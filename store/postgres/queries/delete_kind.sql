-- Forget the settings of a kind in a namespace.
DELETE FROM tenure.kind WHERE namespace = %(namespace)s AND name = %(name)s RETURNING name
