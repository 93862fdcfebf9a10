-- A retry of members makes their workflow go on: a cancel before it is over.
UPDATE tenure.workflow SET canceled_at = NULL, cancel_reason = NULL
WHERE canceled_at IS NOT NULL
  AND id IN (SELECT j.workflow_id FROM tenure.job j WHERE j.id = ANY (%(new_ids)s) AND j.workflow_id IS NOT NULL)
