-- Write new jobs. Those with parents begin as waiting; insert_dependencies decides whether they need to.
-- Columns in which no job has anything come as empty arrays: unnest makes nulls of them.
INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s, timeout_s,
                        max_crashes, retry, labels, idempotency_key, parent_id, start_within_s, start_by, job_timeout_s,
                        deadline, limits, requires, schedule_id, scheduled_at, trigger, upstream_failure,
                        workflow_id, ref, unique_key)
SELECT id, namespace, kind, route, lane, CASE WHEN waits THEN 'waiting' ELSE 'ready' END,
       waits IS NOT true AND delay_s IS NULL AND coalesce(activate_at <= now(), true),
       priority, coalesce(activate_at, now() + make_interval(secs => delay_s), now()), payload::json, ttl_s, timeout_s,
       max_crashes, retry::json, labels::jsonb, idempotency_key, parent_id, start_within_s,
       -- The clock of one that waits for others begins when it no longer does.
       coalesce(start_by, CASE WHEN waits IS NOT true THEN
           tenure.from_start(coalesce(activate_at, now() + make_interval(secs => delay_s), now()), start_within_s) END),
       job_timeout_s,
       CASE WHEN waits IS NOT true THEN
           tenure.from_start(coalesce(activate_at, now() + make_interval(secs => delay_s), now()), job_timeout_s) END,
       string_to_array(limits, ','), requires::jsonb, schedule_id, scheduled_at,
       trigger, upstream_failure, workflow_id, ref, unique_key
FROM unnest(%(ids)s::uuid[], %(namespaces)s::text[], %(kinds)s::text[], %(routes)s::text[], %(lanes)s::bigint[],
            %(waits)s::boolean[], %(priorities)s::smallint[], %(activations)s::timestamptz[], %(delays)s::float8[],
            %(payloads)s::text[], %(ttls)s::real[], %(timeouts)s::real[], %(max_crashes)s::smallint[],
            %(retries)s::text[], %(labels)s::text[], %(keys)s::text[], %(parents)s::uuid[],
            %(start_withins)s::float8[], %(start_bys)s::timestamptz[], %(job_timeouts)s::float8[],
            %(limits)s::text[], %(requires)s::text[], %(schedules)s::uuid[],
            %(ticks)s::timestamptz[], %(triggers)s::text[], %(upstream_failures)s::text[],
            %(workflows)s::uuid[], %(refs)s::text[], %(unique_keys)s::text[])
     AS g (id, namespace, kind, route, lane, waits, priority, activate_at, delay_s, payload, ttl_s, timeout_s,
           max_crashes, retry, labels, idempotency_key, parent_id, start_within_s, start_by, job_timeout_s, limits,
           requires, schedule_id, scheduled_at, trigger, upstream_failure, workflow_id, ref, unique_key)
