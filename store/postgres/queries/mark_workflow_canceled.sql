-- No attempt submits children into the workflow from now on; it waits for those that are being submitted.
UPDATE tenure.workflow SET canceled_at = now(), cancel_reason = %(reason)s WHERE id = %(id)s RETURNING id
