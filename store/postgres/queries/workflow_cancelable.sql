-- A window of the members that have not ended, youngest first: mostly children before those that they wait for.
SELECT id, state FROM tenure.job WHERE workflow_id = %(workflow_id)s AND id < %(before)s ORDER BY id DESC LIMIT %(limit)s
