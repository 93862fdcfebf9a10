-- How long history is kept: policies, legal holds, and what the leader removes by them (coordinator/retain.py).

-- For which jobs, and for how long after their end; an empty name is any. The most specific one decides (model/retention.py).
CREATE TABLE tenure.retention_policy (
    namespace  text NOT NULL,
    kind       text NOT NULL,
    state      text NOT NULL CHECK (state IN ('', 'completed', 'failed', 'canceled')),
    keep_s     bigint CHECK (keep_s > 0),  -- null: for ever
    archive    boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, kind, state)
);

-- Jobs with such a label are not removed, whatever the policies say.
CREATE TABLE tenure.legal_hold (
    key    text NOT NULL,
    value  text NOT NULL,
    reason text NOT NULL DEFAULT '',
    set_by text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key, value)
);

-- Who waited for a job that has ended. Beside dependency_parent, which has the others: together they are all edges, and
-- a submit writes into one of them.
CREATE INDEX dependency_settled ON tenure.dependency (parent_id) WHERE parent_state IS NOT NULL;

-- Jobs that have ended, and what keeps them: a hold, or a job that has not ended and needs them: their parent, which may
-- park on them and read what they made; their children; their retry; a member of their workflow; one that waits for them,
-- or has waited and reads their results. Each is a scalar subquery with a limit, so that it is looked up by an index:
-- EXISTS may be hashed instead, which reads the table of jobs whole.
CREATE VIEW tenure.ended AS
SELECT h.id, h.namespace, h.kind, h.state, h.created_at, h.finished_at, h.workflow_id,
       coalesce((SELECT true FROM tenure.legal_hold l WHERE h.labels ->> l.key = l.value LIMIT 1), false) AS held,
       coalesce(
           (SELECT true FROM tenure.job j WHERE j.id = h.parent_id LIMIT 1),
           (SELECT true FROM tenure.job j WHERE j.id = h.retried_by LIMIT 1),
           (SELECT true FROM tenure.job j WHERE j.parent_id = h.id LIMIT 1),
           (SELECT true FROM tenure.job j WHERE j.workflow_id = h.workflow_id LIMIT 1),
           (SELECT true FROM tenure.dependency d JOIN tenure.job j ON j.id = d.child_id
            WHERE d.parent_id = h.id AND d.parent_state IS NOT NULL LIMIT 1),
           (SELECT true FROM tenure.dependency d JOIN tenure.job j ON j.id = d.child_id
            WHERE d.parent_id = h.id AND d.parent_state IS NULL LIMIT 1),
           false) AS needed
FROM tenure.history h;

-- A job that has ended and is to be waited for is locked, so that it is not removed between this look at it and the commit;
-- else as in 0001.
CREATE OR REPLACE FUNCTION tenure.insert_edges(children uuid[], parents uuid[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH edge AS (
        INSERT INTO tenure.dependency (child_id, parent_id, parent_state)
        SELECT e.child_id, e.parent_id,
               CASE WHEN EXISTS (SELECT FROM tenure.job p WHERE p.id = e.parent_id) THEN NULL
                    ELSE coalesce((SELECT h.state FROM tenure.history h WHERE h.id = e.parent_id LIMIT 1 FOR KEY SHARE),
                                  'canceled') END
        FROM (SELECT DISTINCT * FROM unnest(children, parents)) AS e (child_id, parent_id)
        RETURNING child_id, parent_state
    )
    SELECT tenure.wait_or_begin(array_agg(child_id), array_agg(parent_state)) FROM edge
$$;

-- The weekly partitions of history and attempts, by the time of the end; not the default ones.
CREATE VIEW tenure.week AS
SELECT p.relname AS parent, c.relname AS child,
       (regexp_match(b.bound, 'FROM \(''([^'']+)''\)'))[1]::timestamptz AS from_at,
       (regexp_match(b.bound, 'TO \(''([^'']+)''\)'))[1]::timestamptz AS until_at
FROM pg_inherits i
JOIN pg_class p ON p.oid = i.inhparent
JOIN pg_class c ON c.oid = i.inhrelid
JOIN pg_namespace n ON n.oid = p.relnamespace
CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bound) b
WHERE n.nspname = 'tenure' AND p.relname IN ('history', 'attempt') AND b.bound LIKE 'FOR VALUES FROM%';

-- Drop one partition that is empty and whose week was over a day ago, and return its name; null: there is none, or
-- somebody reads it. As the owner, so that coordinators need no right to drop. Writers are shut out while it is looked at,
-- for a tenth of a second at most.
CREATE FUNCTION tenure.drop_empty_partition() RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    old record;
    has_rows boolean;
BEGIN
    FOR old IN
        SELECT w.parent, w.child FROM tenure.week w WHERE w.until_at <= now() - interval '1 day' ORDER BY w.until_at
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM tenure.%I)', old.child) INTO has_rows;
        CONTINUE WHEN has_rows;
        BEGIN
            EXECUTE format('LOCK TABLE ONLY tenure.%I IN SHARE MODE', old.child);
            EXECUTE format('SELECT EXISTS (SELECT FROM tenure.%I)', old.child) INTO has_rows;
            IF NOT has_rows THEN
                EXECUTE format('DROP TABLE tenure.%I', old.child);
                RETURN old.child;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL;  -- another time
        END;
    END LOOP;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION tenure.drop_empty_partition() FROM PUBLIC;

-- How many jobs have ended, by UTC day of their end. The leader counts what has ended since it last did (coordinator/count.py),
-- so that no end writes a counter; retention takes off what it removes.
CREATE TABLE tenure.history_count (
    day       date NOT NULL,
    namespace text NOT NULL,
    kind      text NOT NULL,
    state     text NOT NULL,
    jobs      bigint NOT NULL,
    PRIMARY KEY (day, namespace, kind, state)
);
CREATE TABLE tenure.history_counted (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    until_at timestamptz NOT NULL  -- what ended before is counted
);
INSERT INTO tenure.history_counted (until_at) VALUES ('-infinity');

-- Finds what ended within a span of time: history is written in the order of the ends, so that a summary of each range of
-- pages suffices, and costs an insert next to nothing.
CREATE INDEX history_finished ON tenure.history USING brin (finished_at) WITH (pages_per_range = 64, autosummarize = on);
