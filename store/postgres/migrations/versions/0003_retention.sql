-- How long history is kept: policies, legal holds, and what the leader removes by them (coordinator/retain.py).

-- For which jobs, and for how long after their end; an empty name is any. The most specific one decides (model/retention.py).
CREATE TABLE tenure.retention_policy (
    namespace  text NOT NULL,
    kind       text NOT NULL,
    state      text NOT NULL CHECK (state IN ('', 'completed', 'failed', 'canceled')),
    keep_s     bigint CHECK (keep_s > 0),  -- null: for ever
    archive    boolean NOT NULL DEFAULT false,
    archive_keep_s bigint CHECK (archive_keep_s > 0),  -- since a file of the archive was made; null: for ever
    storage_class  text,                               -- of files of the archive; null: the bucket's default
    created_at timestamptz NOT NULL DEFAULT now(),     -- since when there is such a one
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
-- a submit writes into one of them. Where the table is in use it was made before (store/postgres/ahead.py); not asked for
-- with IF NOT EXISTS, which would wait for whoever writes.
DO $$ BEGIN
    IF to_regclass('tenure.dependency_settled') IS NULL THEN
        CREATE INDEX dependency_settled ON tenure.dependency (parent_id) WHERE parent_state IS NOT NULL;
    END IF;
END $$;

-- Jobs that have ended, and what keeps them: a hold, or a job that has not ended and needs them: their parent, which may
-- park on them and read what they made; their children; their retry; a member of their workflow; one that waits for them,
-- or has waited and reads their results; and an edge that has not been told how they ended. Each is a scalar subquery with
-- a limit, so that it is looked up by an index: EXISTS may be hashed instead, which reads the table of jobs whole.
-- At most a thousand of the jobs that have waited for one are looked at. With more it counts as needed: it goes when enough of
-- them have gone, which have expired or will.
CREATE VIEW tenure.ended AS
SELECT h.id, h.namespace, h.kind, h.state, h.created_at, h.finished_at, h.workflow_id,
       CASE WHEN h.labels IS NULL THEN false ELSE
           coalesce((SELECT true FROM tenure.legal_hold l WHERE h.labels ->> l.key = l.value LIMIT 1), false) END AS held,
       coalesce(
           (SELECT true FROM tenure.job j WHERE j.id = h.parent_id LIMIT 1),
           (SELECT true FROM tenure.job j WHERE j.id = h.retried_by LIMIT 1),
           (SELECT true FROM tenure.job j WHERE j.parent_id = h.id LIMIT 1),
           (SELECT true FROM tenure.job j WHERE j.workflow_id = h.workflow_id LIMIT 1),
           (SELECT true FROM tenure.dependency d
            WHERE d.parent_id = h.id AND d.parent_state IS NOT NULL LIMIT 1 OFFSET 1000),
           -- Not as a join: a plan made while no job was there would look through all jobs for each row.
           (SELECT true FROM (SELECT d.child_id FROM tenure.dependency d
                              WHERE d.parent_id = h.id AND d.parent_state IS NOT NULL LIMIT 1000) AS waited
            WHERE (SELECT true FROM tenure.job j WHERE j.id = waited.child_id LIMIT 1) LIMIT 1),
           (SELECT true FROM tenure.dependency d WHERE d.parent_id = h.id AND d.parent_state IS NULL LIMIT 1),
           false) AS needed
FROM tenure.history h;

-- As insert_edges of 0001, which releases before this one go on using, and tenure.submit_job does; but a job that has ended and
-- is to be waited for is locked, so that it is not removed between this look at it and the commit; and one that is gone since
-- the job was planned is refused.
CREATE FUNCTION tenure.refuse_gone(parent uuid) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'job % is not there any more', parent USING ERRCODE = 'TN005';
END $$;
CREATE FUNCTION tenure.insert_held_edges(children uuid[], parents uuid[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH edge AS (
        INSERT INTO tenure.dependency (child_id, parent_id, parent_state)
        SELECT e.child_id, e.parent_id,
               CASE WHEN EXISTS (SELECT FROM tenure.job p WHERE p.id = e.parent_id) THEN NULL
                    ELSE coalesce((SELECT h.state FROM tenure.history h WHERE h.id = e.parent_id LIMIT 1 FOR KEY SHARE),
                                  tenure.refuse_gone(e.parent_id)) END
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
-- somebody reads it: then the others are left for another time, too, since whoever reads one for long, as pg_dump does, reads
-- all. As the owner, so that coordinators need no right to drop. Writers are shut out while it is looked at, for a tenth of a
-- second at most.
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
            RETURN NULL;  -- another time
        END;
    END LOOP;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION tenure.drop_empty_partition() FROM PUBLIC;

-- How many jobs have ended, by UTC day of their end. The leader counts a week when it is over, and the present one again and
-- again (coordinator/count.py), so that no end writes a counter; retention takes off what it removes.
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
    until_at timestamptz  -- what ended before is counted; null: nothing yet
);
INSERT INTO tenure.history_counted DEFAULT VALUES;

-- Remove jobs with all that hangs on them, if they have expired and nothing keeps them, by the policies, holds and jobs of
-- now, and return how many that were: what was seen before is not relied on. As the owner, so that coordinators cannot
-- remove history but by what is set. With one entry in the audit log for each policy and namespace.
-- One at a time, or a change of what it goes by: whoever was answered that a hold is set knows that no removal is under way
-- that has not seen it. The jobs are locked at once or not at all: whoever retries one of them, or has just made a job that
-- depends on one, goes first, and is seen the next time.
CREATE FUNCTION tenure.remove_history(asked uuid[], from_at timestamptz, until_at timestamptz, made_at timestamptz,
                                      leader text, has_objects boolean, archived boolean, archive_file text)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    removed bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('tenure.retention'));
    PERFORM 1 FROM tenure.history h
    WHERE h.id = ANY (asked) AND h.finished_at >= from_at AND h.finished_at < until_at
    ORDER BY h.id FOR UPDATE NOWAIT;
    WITH due AS MATERIALIZED (
        SELECT e.id, concat_ws('/', coalesce(nullif(p.namespace, ''), '*'), coalesce(nullif(p.kind, ''), '*'),
                               coalesce(nullif(p.state, ''), '*')) AS policy
        FROM tenure.ended e CROSS JOIN LATERAL (
            SELECT namespace, kind, state, keep_s, archive FROM tenure.retention_policy p
            WHERE p.namespace IN ('', e.namespace) AND p.kind IN ('', e.kind) AND p.state IN ('', e.state)
            ORDER BY p.namespace <> '' DESC, p.kind <> '' DESC, p.state <> '' DESC LIMIT 1
        ) p
        WHERE e.id = ANY (asked)
          AND e.finished_at >= from_at AND e.finished_at < until_at
          AND e.finished_at + make_interval(secs => p.keep_s) <= now() AND p.archive = archived
          AND NOT e.held AND NOT e.needed
          AND NOT (archived AND EXISTS (SELECT FROM tenure.log_head l WHERE l.job_id = e.id AND l.moved_at IS NULL))
    ), gone AS (
        DELETE FROM tenure.history h
        WHERE h.id = ANY (ARRAY(SELECT id FROM due))
          AND h.finished_at >= from_at AND h.finished_at < until_at
        RETURNING h.id, h.namespace, h.kind, h.state, h.workflow_id, h.finished_at, h.attempt
    ),
    -- What hangs on a job goes here.
    attempts AS (
        DELETE FROM tenure.attempt a
        WHERE a.job_id = ANY (ARRAY(SELECT id FROM gone))
          AND a.finished_at >= made_at - interval '1 h' AND a.finished_at < until_at
    ), artifacts AS (
        DELETE FROM tenure.artifact a WHERE a.job_id = ANY (ARRAY(SELECT id FROM gone)) RETURNING a.job_id
    ), begun AS (
        DELETE FROM tenure.upload u WHERE u.job_id = ANY (ARRAY(SELECT id FROM gone)) RETURNING u.job_id
    ), lines AS (
        DELETE FROM tenure.log l WHERE l.job_id = ANY (ARRAY(SELECT id FROM gone))
    ), heads AS (
        DELETE FROM tenure.log_head l WHERE l.job_id = ANY (ARRAY(SELECT id FROM gone)) RETURNING l.job_id, l.moved_at
    ), files AS (
        -- A log may have been sent, and not be noted as moved.
        SELECT job_id FROM artifacts UNION SELECT job_id FROM begun
        UNION SELECT job_id FROM heads WHERE moved_at IS NOT NULL OR has_objects
    ), objects AS (
        -- They go later (coordinator/leftovers.py): those of jobs that have saved something, or have begun to. The archive
        -- goes on referring to those of its jobs.
        INSERT INTO tenure.object_to_delete (id, namespace)
        SELECT g.id, g.namespace FROM gone g
        WHERE NOT archived AND g.id IN (SELECT job_id FROM files)
        ON CONFLICT DO NOTHING
    ), edges AS (
        DELETE FROM tenure.dependency d WHERE d.child_id = ANY (ARRAY(SELECT id FROM gone))
    ), workflows AS (
        DELETE FROM tenure.workflow w
        WHERE w.id = ANY (ARRAY(SELECT DISTINCT workflow_id FROM gone WHERE workflow_id IS NOT NULL))
          AND NOT EXISTS (SELECT FROM tenure.job j WHERE j.workflow_id = w.id)
          AND NOT EXISTS (SELECT FROM tenure.history h
                          WHERE h.workflow_id = w.id AND h.id <> ALL (ARRAY(SELECT id FROM gone)))
    ), uncounted AS (
        UPDATE tenure.history_count c SET jobs = greatest(0, c.jobs - g.jobs)
        FROM (SELECT (finished_at AT TIME ZONE 'UTC')::date AS day, namespace, kind, state, count(*) AS jobs FROM gone
              WHERE finished_at < (SELECT k.until_at FROM tenure.history_counted k) GROUP BY 1, 2, 3, 4) g
        WHERE (c.day, c.namespace, c.kind, c.state) = (g.day, g.namespace, g.kind, g.state)
    ), told AS (
        INSERT INTO tenure.audit (id, caller, role, action, namespace, target, outcome, detail)
        SELECT tenure.new_id(), leader, 'coordinator', 'retention.remove', g.namespace, d.policy, 'ok',
               json_build_object('jobs', count(*), 'first', (array_agg(g.id ORDER BY g.id))[1],
                                 'last', (array_agg(g.id ORDER BY g.id DESC))[1],
                                 'finished_from', min(g.finished_at), 'finished_until', max(g.finished_at),
                                 'archive_file', archive_file)
        FROM gone g JOIN due d USING (id) GROUP BY d.policy, g.namespace
    )
    SELECT count(*) INTO removed FROM gone;
    RETURN removed;
END $$;
REVOKE ALL ON FUNCTION tenure.remove_history FROM PUBLIC;
