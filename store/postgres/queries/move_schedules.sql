-- Move schedules on past the ticks that were decided upon; fails the transaction unless all are as they were seen.
WITH given AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(turns)s::bigint[], %(nexts)s::timestamptz[], %(queued)s::timestamptz[],
                         %(last_ticks)s::timestamptz[], %(last_jobs)s::uuid[], %(recents)s::text[], %(fired)s::bigint[],
                         %(skipped)s::bigint[], %(reasons)s::text[])
             AS g (id, turn, next_at, queued_tick, last_tick, last_job_id, recent_jobs, fired, skipped, reason)
), locked AS (
    SELECT s.id FROM tenure.schedule s JOIN given g ON s.id = g.id AND s.turn = g.turn ORDER BY s.id FOR UPDATE OF s
), moved AS (
    UPDATE tenure.schedule s
    SET next_at = g.next_at, queued_tick = g.queued_tick, last_tick = coalesce(g.last_tick, s.last_tick),
        last_job_id = coalesce(g.last_job_id, s.last_job_id), recent_jobs = g.recent_jobs::uuid[],
        fired = s.fired + g.fired, skipped = s.skipped + g.skipped,
        skipped_at = CASE WHEN g.skipped > 0 THEN now() ELSE s.skipped_at END,
        skip_reason = CASE WHEN g.skipped > 0 THEN g.reason ELSE s.skip_reason END, turn = s.turn + 1
    FROM given g, locked l
    WHERE l.id = s.id AND g.id = s.id AND s.turn = g.turn
    RETURNING s.id
)
SELECT tenure.assert_all((SELECT count(*) FROM moved), (SELECT count(*) FROM given))
