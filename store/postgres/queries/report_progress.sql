-- Progress under the fence; returns those that were accepted.
UPDATE tenure.job j SET progress = r.fraction, progress_message = r.message
FROM unnest(%(ids)s::uuid[], %(fences)s::bigint[], %(fractions)s::real[], %(messages)s::text[])
     AS r (id, fence, fraction, message)
WHERE j.id = r.id AND j.fence = r.fence AND j.state = 'executing'
RETURNING j.id, j.fence
