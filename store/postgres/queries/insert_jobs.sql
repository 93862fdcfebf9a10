-- Write new jobs. Those with parents begin as waiting; insert_dependencies decides whether they need to.
INSERT INTO tenure.job (id, namespace, kind, route, lane, state, due, priority, activate_at, payload, ttl_s, timeout_s,
                        max_crashes, retry, labels, idempotency_key, parent_id, schedule_id, scheduled_at)
SELECT id, namespace, kind, route, lane, CASE WHEN waits THEN 'waiting' ELSE 'ready' END,
       NOT waits AND delay_s = 0 AND coalesce(activate_at <= now(), true),
       priority, coalesce(activate_at, now() + make_interval(secs => delay_s)), payload::json, ttl_s, timeout_s,
       max_crashes, retry::json, labels::jsonb, idempotency_key, parent_id, schedule_id, scheduled_at
FROM unnest(%(ids)s::uuid[], %(namespaces)s::text[], %(kinds)s::text[], %(routes)s::text[], %(lanes)s::bigint[],
            %(waits)s::boolean[], %(priorities)s::smallint[], %(activations)s::timestamptz[], %(delays)s::float8[],
            %(payloads)s::text[], %(ttls)s::real[], %(timeouts)s::real[], %(max_crashes)s::smallint[],
            %(retries)s::text[], %(labels)s::text[], %(keys)s::text[], %(parents)s::uuid[],
            %(schedules)s::uuid[], %(ticks)s::timestamptz[])
     AS g (id, namespace, kind, route, lane, waits, priority, activate_at, delay_s, payload, ttl_s, timeout_s,
           max_crashes, retry, labels, idempotency_key, parent_id, schedule_id, scheduled_at)
