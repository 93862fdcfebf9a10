-- Change what a schedule is, as somebody asked; no row if it is not as it was seen.
UPDATE tenure.schedule
SET spec = %(spec)s, paused = %(paused)s, next_at = %(next_at)s, queued_tick = %(queued_tick)s,
    updated_at = now(), revision = revision + 1, turn = turn + 1
WHERE id = %(id)s AND turn = %(turn)s
RETURNING *, now() AS now
