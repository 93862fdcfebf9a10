-- The trace in which a job was submitted is no part of what was asked for: model/request.py, model/trace.py.

CREATE OR REPLACE FUNCTION tenure.pairs(labels jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(length(key) || ':' || key || length(value) || ':' || value, '' ORDER BY key COLLATE "C")
    FROM jsonb_each_text(labels) WHERE key NOT IN ('traceparent', 'tracestate')
$$;
