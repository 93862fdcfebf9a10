-- The memory of tenure: an active table that stays small, history apart from it, attempts beside both.
-- State changes are single guarded statements (store/postgres/queries); MOVES in model/states.py lists them.
-- Each function has a search_path of its own that ends in pg_temp: some are called as the owner of the schema, on behalf
-- of those who may only submit, and where pg_temp is not named it is searched first for types and tables.

CREATE SEQUENCE tenure.fence_sequence AS bigint MINVALUE 1 MAXVALUE 140737488355327;  -- 47 bits: model/fence.py

-- What the stores looked like when last seen, and who leads. One row.
CREATE TABLE tenure.cluster (
    only_row         boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch            integer NOT NULL DEFAULT 1 CHECK (epoch BETWEEN 1 AND 65535),
    leader           text NOT NULL DEFAULT '',
    leader_term      bigint NOT NULL DEFAULT 0,
    etcd_cluster_id  text,
    etcd_revision    bigint NOT NULL DEFAULT 0,
    postgres_system_id text,
    postgres_timeline  integer,
    claims_frozen_until timestamptz
);
INSERT INTO tenure.cluster DEFAULT VALUES;

-- Pools that a worker has ever served, and route prefixes that were paused, until they are removed; a job's lane names
-- the longest one that covers its route.
CREATE TABLE tenure.pool (
    path       text PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- The id of a lane is made from what it stands for, so that what a coordinator remembers stays right when Postgres
-- fails over to a server that never had the row (coordinator/lanes.py makes the row again). SHA-256, its first 60 bits.
CREATE FUNCTION tenure.lane_id(pool text, namespace text, kind text, limits text, requires text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ('x0' || substr(encode(sha256(convert_to(concat_ws(E'\n', pool, namespace, kind, limits, requires), 'UTF8')),
                                  'hex'), 1, 15))::bit(64)::bigint
$$;

-- Ready jobs that one decision can treat alike, interned, so that lanes which cannot run are skipped whole.
CREATE TABLE tenure.lane (
    id        bigint PRIMARY KEY GENERATED ALWAYS AS (tenure.lane_id(pool, namespace, kind, limits, requires)) STORED,
    pool      text NOT NULL,
    namespace text NOT NULL,
    kind      text NOT NULL,
    limits    text NOT NULL DEFAULT '',  -- names, sorted, with commas between
    requires  text NOT NULL DEFAULT '',  -- labels that a worker must have: JSON, sorted by name
    used_at   timestamptz NOT NULL DEFAULT now(),  -- when last asked for, to the hour: coordinators remember it for half of one
    UNIQUE (pool, namespace, kind, limits, requires)
);
CREATE INDEX lane_namespace ON tenure.lane (namespace);

-- What operators set for dispatch (model/rules.py). A name ending in * is a family: each name it covers is a limit.
CREATE TABLE tenure.job_limit (
    name       text PRIMARY KEY,
    concurrent integer CHECK (concurrent >= 0),
    rate       integer CHECK (rate >= 0),
    interval_s double precision NOT NULL DEFAULT 1 CHECK (interval_s > 0),
    burst      integer CHECK (burst >= 1),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (concurrent IS NOT NULL OR rate IS NOT NULL)
);

-- Tokens of limits with a rate: what was left when last taken from, by name of the limit (not of its family).
CREATE TABLE tenure.bucket (
    name     text PRIMARY KEY,
    tokens   double precision NOT NULL,
    taken_at timestamptz NOT NULL
);

CREATE TABLE tenure.pause (
    subject   text NOT NULL CHECK (subject IN ('pool', 'kind', 'namespace')),
    name      text NOT NULL,
    reason    text NOT NULL DEFAULT '',
    paused_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subject, name)
);

CREATE TABLE tenure.namespace (
    name       text PRIMARY KEY,
    weight     real NOT NULL DEFAULT 1 CHECK (weight > 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    ageing_s   double precision CHECK (ageing_s > 0),  -- null: no job is raised
    backlog    bigint CHECK (backlog > 0),  -- the most unfinished jobs; null: any number
    unfinished bigint,                      -- as the leader counted them last, where there is a bound
    counted_at timestamptz
);

-- What jobs of a kind get where their submitter asked for nothing (model/kinds.py).
CREATE TABLE tenure.kind (
    namespace  text NOT NULL,  -- '': all namespaces
    name       text NOT NULL,
    settings   json NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (namespace, name)
);

CREATE TABLE tenure.job (
    id              uuid PRIMARY KEY,
    namespace       text NOT NULL,
    kind            text NOT NULL,
    route           text NOT NULL,
    lane            bigint NOT NULL,  -- no foreign key: it would lock the lane's row at every insert
    state           text NOT NULL CHECK (state IN ('waiting', 'ready', 'executing', 'restarting')),
    due             boolean NOT NULL,  -- its activation time has come; rows that lie ahead are out of the ready index
    priority        smallint NOT NULL,
    activate_at     timestamptz NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    payload         json NOT NULL,
    attempt         integer NOT NULL DEFAULT 0,
    errors          integer NOT NULL DEFAULT 0,
    crashes         integer NOT NULL DEFAULT 0,
    -- The executing attempt: all set while executing, all null otherwise.
    fence           bigint,
    worker          text,
    lease           bigint,
    claim_revision  bigint,
    started_at      timestamptz,
    ttl_s           real NOT NULL,
    timeout_s       real,
    max_crashes     smallint NOT NULL,
    retry           json,              -- null: the defaults of model.retry.RetryPolicy
    labels          jsonb,             -- null: none
    idempotency_key text,
    parent_id       uuid,
    schedule_id     uuid,              -- which schedule made it, and for which of its ticks
    scheduled_at    timestamptz,
    waiting_on      integer NOT NULL DEFAULT 0,  -- parents that have not ended; with all_completed: not completed
    checkpoint      json,
    progress        real NOT NULL DEFAULT 0,
    progress_message text NOT NULL DEFAULT '',
    error           json,
    cancel_requested boolean NOT NULL DEFAULT false,
    cancel_requested_at timestamptz,   -- since when the worker has had its grace
    reason          text NOT NULL DEFAULT '',
    retry_of        uuid,              -- the failed or canceled job that this one is another go at
    start_within_s  double precision,
    start_by        timestamptz,       -- as asked for, or start_within_s after the first possible start
    job_timeout_s   double precision,
    deadline        timestamptz,       -- job_timeout_s after the first possible start; null while waiting
    limits          text[],              -- null: none
    requires        jsonb,               -- null: none
    slots           text[],              -- of the executing attempt, <limit>/<n> each; null: none
    trigger         text,                -- model.dependencies.Trigger; null: all_completed
    upstream_failure text,               -- how it ends when its trigger can no longer be met; null: cancel
    parked_attempt  integer,             -- the last attempt that parked; null: none. The dependencies of it count alone
    parked_trigger  text,                -- what that attempt waits for
    cancel_grace_s  real,                -- how long its worker has to heed a cancel; null: the coordinators' setting
    workflow_id     uuid,                -- the workflow that it is a member of; null: none
    ref             text,                -- its name there
    asked_priority  smallint,            -- what was asked for, once ageing has raised the priority; null: it has not
    unique_key      text,                -- at most one unfinished job of a namespace and kind has it
    replaced_by     uuid,                -- the job that has taken the unique key from this one, which is to stop
    held_back       boolean,             -- waits for the replaced job under the same key: true: for nothing else; null: not
    CONSTRAINT executing_has_a_fence CHECK ((state = 'executing') = (fence IS NOT NULL)),
    CONSTRAINT waiting_is_not_due CHECK (NOT (state = 'waiting' AND due)),
    CONSTRAINT held_back_waits CHECK (held_back IS NULL OR state = 'waiting')
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
        autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- The ready set, in the order in which a lane is served.
CREATE INDEX job_ready ON tenure.job (lane, priority DESC, activate_at, id)
    WHERE due AND state IN ('ready', 'restarting');
CREATE INDEX job_aged ON tenure.job (lane) WHERE asked_priority IS NOT NULL AND due AND state IN ('ready', 'restarting');
CREATE INDEX job_activation ON tenure.job (activate_at) WHERE NOT due AND state IN ('ready', 'restarting');
-- What may miss its time while nobody executes it.
CREATE INDEX job_start_by ON tenure.job (start_by) WHERE start_by IS NOT NULL AND attempt = 0;
CREATE INDEX job_deadline ON tenure.job (deadline) WHERE deadline IS NOT NULL AND state <> 'executing';
CREATE INDEX job_executing ON tenure.job (id) WHERE state = 'executing';
CREATE INDEX job_waiting ON tenure.job (id) WHERE state = 'waiting';
CREATE INDEX job_parent ON tenure.job (parent_id, id) WHERE parent_id IS NOT NULL;
CREATE INDEX job_workflow ON tenure.job (workflow_id, id) WHERE workflow_id IS NOT NULL;
-- Who holds a unique key. A row that goes to history leaves it, whichever statement moves it.
CREATE UNIQUE INDEX job_unique ON tenure.job (namespace, kind, unique_key)
    WHERE unique_key IS NOT NULL AND replaced_by IS NULL;
CREATE INDEX job_replaced ON tenure.job (namespace, kind, unique_key) WHERE replaced_by IS NOT NULL;

CREATE TABLE tenure.history (
    id              uuid NOT NULL,
    namespace       text NOT NULL,
    kind            text NOT NULL,
    route           text NOT NULL,
    state           text NOT NULL CHECK (state IN ('completed', 'failed', 'canceled')),
    priority        smallint NOT NULL,
    activate_at     timestamptz NOT NULL,
    created_at      timestamptz NOT NULL,
    payload         json NOT NULL,
    result          json,
    attempt         integer NOT NULL,
    errors          integer NOT NULL,
    crashes         integer NOT NULL,
    fence           bigint,
    worker          text,
    started_at      timestamptz,
    finished_at     timestamptz NOT NULL,
    ttl_s           real NOT NULL,
    timeout_s       real,
    max_crashes     smallint NOT NULL,
    retry           json,
    labels          jsonb,
    idempotency_key text,
    parent_id       uuid,
    schedule_id     uuid,
    scheduled_at    timestamptz,
    progress        real NOT NULL,
    progress_message text NOT NULL,
    error           json,
    cancel_requested boolean NOT NULL,
    reason          text NOT NULL,
    retry_of        uuid,
    start_within_s  double precision,
    start_by        timestamptz,
    job_timeout_s   double precision,
    deadline        timestamptz,
    retried_by      uuid,              -- the one thing that is written after the end: which job is another go at it
    limits          text[],
    requires        jsonb,
    trigger         text,
    upstream_failure text,
    workflow_id     uuid,
    ref             text,
    unique_key      text,
    replaced_by     uuid,
    deleted_at      timestamptz         -- hidden from listings since
) PARTITION BY RANGE (finished_at);
CREATE INDEX history_id ON tenure.history (id);
CREATE INDEX history_parent ON tenure.history (parent_id, id) WHERE parent_id IS NOT NULL;
CREATE INDEX history_workflow ON tenure.history (workflow_id, id) WHERE workflow_id IS NOT NULL;
-- Dead letters: what may be retried.
CREATE INDEX history_dead_letter ON tenure.history (id) WHERE state IN ('failed', 'canceled') AND retried_by IS NULL AND deleted_at IS NULL;

-- One row per ended attempt, written in the statement that ends it.
CREATE TABLE tenure.attempt (
    job_id         uuid NOT NULL,
    attempt        integer NOT NULL,
    fence          bigint NOT NULL,
    worker         text NOT NULL,
    lease          bigint NOT NULL,
    claim_revision bigint NOT NULL,
    outcome        text NOT NULL CHECK (outcome IN ('completed', 'failed', 'canceled', 'timed_out', 'rescheduled',
                                                    'parked', 'lost', 'released')),
    error          json,
    started_at     timestamptz NOT NULL,
    finished_at    timestamptz NOT NULL,
    slots          text[]  -- a repeated report releases them with its claim
) PARTITION BY RANGE (finished_at);
CREATE INDEX attempt_job ON tenure.attempt (job_id, attempt);

-- Weekly partitions, made ahead by the leader; the default one only catches a clock that ran away.
CREATE TABLE tenure.history_default PARTITION OF tenure.history DEFAULT;
CREATE TABLE tenure.attempt_default PARTITION OF tenure.attempt DEFAULT;

CREATE FUNCTION tenure.make_partitions(weeks_ahead integer) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    week date;
    parent text;
    child text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('tenure.make_partitions'));
    FOR step IN 0..weeks_ahead LOOP
        week := date_trunc('week', now() AT TIME ZONE 'UTC')::date + 7 * step;
        FOREACH parent IN ARRAY ARRAY['history', 'attempt'] LOOP
            child := parent || '_' || to_char(week, 'IYYY_"w"IW');
            IF to_regclass('tenure.' || child) IS NULL THEN
                BEGIN
                    EXECUTE format('CREATE TABLE tenure.%I PARTITION OF tenure.%I FOR VALUES FROM (%L) TO (%L)', child,
                                   parent, week::timestamp AT TIME ZONE 'UTC', (week + 7)::timestamp AT TIME ZONE 'UTC');
                    made := made + 1;
                EXCEPTION WHEN check_violation THEN  -- the default partition has rows of that week, and keeps it
                    RAISE WARNING 'tenure.% stays in tenure.%_default: %', child, parent, SQLERRM;
                END;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
SELECT tenure.make_partitions(4);

-- A child waits for its parents; parent_state is null until the parent is terminal.
CREATE TABLE tenure.dependency (
    child_id     uuid NOT NULL,
    parent_id    uuid NOT NULL,
    parent_state text CHECK (parent_state IN ('completed', 'failed', 'canceled')),
    parked_attempt integer,  -- of the child, which parked on this parent; null: asked for at the submit
    PRIMARY KEY (child_id, parent_id)
);
CREATE INDEX dependency_parent ON tenure.dependency (parent_id) WHERE parent_state IS NULL;

-- model.dependencies.verdict: what so many parents that have not ended, have completed, and have ended otherwise mean.
-- This and trigger_of have no search_path, so that they are put into the statements that call them; they name no type,
-- no table and no function.
CREATE FUNCTION tenure.verdict(trigger text, unended bigint, completed bigint, otherwise bigint) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE coalesce(trigger, 'all_completed')
        WHEN 'all_completed' THEN
            CASE WHEN otherwise > 0 THEN 'broken' WHEN unended > 0 THEN 'wait' ELSE 'run' END
        WHEN 'all_finished' THEN
            CASE WHEN unended > 0 THEN 'wait' ELSE 'run' END
        WHEN 'any_completed' THEN
            CASE WHEN completed > 0 OR unended + otherwise = 0 THEN 'run' WHEN unended > 0 THEN 'wait' ELSE 'broken' END
        ELSE
            CASE WHEN completed + otherwise > 0 OR unended = 0 THEN 'run' ELSE 'wait' END
    END
$$;

-- The trigger by which a job waits now: that of its last parking, else its own.
CREATE FUNCTION tenure.trigger_of(j tenure.job) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(CASE WHEN j.parked_attempt IS NULL THEN j.trigger ELSE j.parked_trigger END, 'all_completed')
$$;

-- scope is '' for submitters' own keys, and the parent's id for children, so that neither can meet the other.
CREATE TABLE tenure.idempotency (
    namespace    text NOT NULL,
    scope        text NOT NULL,
    key          text NOT NULL,
    job_id       uuid NOT NULL,
    request_hash bytea NOT NULL,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (namespace, scope, key)
);
CREATE INDEX idempotency_expiry ON tenure.idempotency (expires_at);

-- Refuses the rest of a transaction whose attempt is not executing under this fence any more.
CREATE FUNCTION tenure.assert_fence(job uuid, held bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM 1 FROM tenure.job j WHERE j.id = job AND j.fence = held AND j.state = 'executing' FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'ownership of job % is lost', job USING ERRCODE = 'TN001';
    END IF;
END $$;

-- The timeline that is written now. Not pg_control_checkpoint(): that tells of the last checkpoint, which after a
-- promotion can be minutes old and of the timeline before.
CREATE FUNCTION tenure.timeline() RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::integer
$$;

-- Refuses the rest of a transaction of a leader whose term is over.
CREATE FUNCTION tenure.assert_term(coordinator text, term bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM 1 FROM tenure.cluster c WHERE c.leader = coordinator AND c.leader_term = term FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'term % of % is over', term, coordinator USING ERRCODE = 'TN002';
    END IF;
END $$;

-- So many seconds after a job can first start; null without seconds. Not beyond what clients can read.
CREATE FUNCTION tenure.from_start(activate_at timestamptz, seconds double precision) RETURNS timestamptz
LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT least(greatest(activate_at, now()) + make_interval(secs => seconds), timestamptz '9999-12-31 23:59:59+00')
$$;

-- What becomes of new jobs by the states of their parents, one for each edge (null: it has not ended): how many they wait
-- for is counted, and those whose trigger is met begin, unless they are held back. The clock of one that waits begins when
-- it no longer does.
CREATE FUNCTION tenure.wait_or_begin(children uuid[], parent_states text[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH counted AS (
        SELECT child_id, count(*) FILTER (WHERE parent_state IS NULL) AS unended,
               count(*) FILTER (WHERE parent_state = 'completed') AS completed,
               count(*) FILTER (WHERE parent_state <> 'completed') AS otherwise
        FROM unnest(children, parent_states) AS edge (child_id, parent_state) GROUP BY child_id
    ), judged AS (
        SELECT j.id, c.unended + CASE WHEN j.trigger IS NULL THEN c.otherwise ELSE 0 END AS waiting_on,
               tenure.verdict(j.trigger, c.unended, c.completed, c.otherwise) = 'run' AS runs
        FROM tenure.job j JOIN counted c ON j.id = c.child_id
    )
    UPDATE tenure.job j
    SET waiting_on = v.waiting_on,
        held_back = CASE WHEN j.held_back IS NOT NULL THEN v.runs END,
        state = CASE WHEN v.runs AND j.held_back IS NULL THEN 'ready' ELSE j.state END,
        start_by = CASE WHEN v.runs AND j.held_back IS NULL
                        THEN coalesce(j.start_by, tenure.from_start(j.activate_at, j.start_within_s)) ELSE j.start_by END,
        deadline = CASE WHEN v.runs AND j.held_back IS NULL THEN tenure.from_start(j.activate_at, j.job_timeout_s) END,
        due = v.runs AND j.held_back IS NULL AND j.activate_at <= now()
    FROM judged v WHERE j.id = v.id
$$;

-- Writes the edges of new jobs, whose parents are held in place, and decides whether these begin. A parent that is gone
-- counts as canceled.
CREATE FUNCTION tenure.insert_edges(children uuid[], parents uuid[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH edge AS (
        INSERT INTO tenure.dependency (child_id, parent_id, parent_state)
        SELECT e.child_id, e.parent_id,
               CASE WHEN EXISTS (SELECT FROM tenure.job p WHERE p.id = e.parent_id) THEN NULL
                    ELSE coalesce((SELECT h.state FROM tenure.history h WHERE h.id = e.parent_id LIMIT 1), 'canceled') END
        FROM (SELECT DISTINCT * FROM unnest(children, parents)) AS e (child_id, parent_id)
        RETURNING child_id, parent_state
    )
    SELECT tenure.wait_or_begin(array_agg(child_id), array_agg(parent_state)) FROM edge
$$;

-- Every job, active or finished, with the same columns: what reads are made of.
CREATE VIEW tenure.jobs AS
SELECT id, namespace, kind, route, state, coalesce(asked_priority, priority) AS priority, activate_at, created_at,
       payload, NULL::json AS result, attempt,
       errors, crashes, fence, worker, lease, claim_revision, started_at, NULL::timestamptz AS finished_at, ttl_s,
       timeout_s, max_crashes, retry, labels, idempotency_key, parent_id, progress, progress_message, error,
       cancel_requested, reason, retry_of, NULL::uuid AS retried_by, start_by, job_timeout_s, deadline, limits,
       requires, schedule_id, scheduled_at, trigger, upstream_failure, workflow_id, ref,
       asked_priority IS NOT NULL AS aged, unique_key, replaced_by, NULL::timestamptz AS deleted_at
FROM tenure.job
UNION ALL
SELECT id, namespace, kind, route, state, priority, activate_at, created_at, payload, result, attempt,
       errors, crashes, fence, worker, NULL, NULL, started_at, finished_at, ttl_s,
       timeout_s, max_crashes, retry, labels, idempotency_key, parent_id, progress, progress_message, error,
       cancel_requested, reason, retry_of, retried_by, start_by, job_timeout_s, deadline, limits,
       requires, schedule_id, scheduled_at, trigger, upstream_failure, workflow_id, ref,
       false, unique_key, replaced_by, deleted_at
FROM tenure.history;

-- Schedules. next_at is the next tick that nobody has decided upon (null: there is none), moved on in the transaction
-- that inserts the jobs of the ticks before it. turn rises with every write, and every write names the one it saw;
-- revision rises when somebody changes what the schedule is.
CREATE TABLE tenure.schedule (
    id             uuid PRIMARY KEY,
    namespace      text NOT NULL,
    name           text NOT NULL,
    spec           json NOT NULL,      -- model.schedules.ScheduleSpec; whether it is paused is said by the column
    paused         boolean NOT NULL,
    next_at        timestamptz,
    queued_tick    timestamptz,        -- waits for the job before it to end
    last_tick      timestamptz,
    last_job_id    uuid,
    recent_jobs    uuid[] NOT NULL DEFAULT '{}',  -- what overlap rules ask about: jobs that had not ended when last seen
    fired          bigint NOT NULL DEFAULT 0,
    skipped        bigint NOT NULL DEFAULT 0,
    skipped_at     timestamptz,
    skip_reason    text NOT NULL DEFAULT '',
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    revision       bigint NOT NULL DEFAULT 1,
    turn           bigint NOT NULL DEFAULT 1,
    UNIQUE (namespace, name)
) WITH (fillfactor = 70);
CREATE INDEX schedule_due ON tenure.schedule (next_at) WHERE NOT paused;
CREATE INDEX schedule_queued ON tenure.schedule (id) WHERE queued_tick IS NOT NULL AND NOT paused;

-- Refuses the rest of a transaction in which a guarded write met fewer rows than it was made for.
CREATE FUNCTION tenure.assert_all(met bigint, wanted bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF met <> wanted THEN
        RAISE EXCEPTION 'only % of % rows are as they were seen', met, wanted USING ERRCODE = 'TN003';
    END IF;
END $$;

-- Batches that belong together. The members say so themselves (workflow_id); a row here outlives them.
CREATE TABLE tenure.workflow (
    id            uuid PRIMARY KEY,
    namespace     text NOT NULL,      -- of its first member
    name          text,               -- null: none was given
    created_at    timestamptz NOT NULL DEFAULT now(),
    jobs          integer NOT NULL,   -- that it was submitted with; children and retries join it later
    canceled_at   timestamptz,        -- from then on no attempt submits children into it, unless a member is retried
    cancel_reason text
);
CREATE INDEX workflow_name ON tenure.workflow (name, id) WHERE name IS NOT NULL;
CREATE INDEX workflow_namespace ON tenure.workflow (namespace, id);

-- Refuses the rest of a transaction that would add members to a canceled workflow. Its lock makes a cancel wait for
-- members that are being added, so that whoever has marked the workflow sees all of them.
CREATE FUNCTION tenure.assert_workflow(workflow uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM 1 FROM tenure.workflow w WHERE w.id = workflow AND w.canceled_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'workflow % is canceled', workflow USING ERRCODE = 'TN004';
    END IF;
END $$;

-- Unique keys. A job that is replaced while it executes gives up its key at once and is gone some time later; whoever has
-- the key until then is held as waiting, so that two of them never execute. Kept by triggers, since jobs begin and end by
-- several statements and none of them may forget it; they concern rows with a unique key alone. held_back is beside
-- waiting_on, which counts parents alone: one whose trigger is met while it is held back is true, and no later end of a
-- parent changes that (settle_parents.sql, unsettled_parents.sql).
CREATE FUNCTION tenure.hold_behind_replaced() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Locked, so that its end waits for this insert and then sees the row.
    PERFORM FROM tenure.job j
    WHERE (j.namespace, j.kind, j.unique_key) = (NEW.namespace, NEW.kind, NEW.unique_key) AND j.replaced_by IS NOT NULL
    FOR KEY SHARE;
    IF FOUND THEN
        UPDATE tenure.job j
        SET held_back = j.state <> 'waiting',  -- one with parents: insert_dependencies.sql goes on
            state = 'waiting', due = false, deadline = NULL,
            start_by = CASE WHEN j.start_within_s IS NULL THEN j.start_by END
        WHERE j.id = NEW.id;
    END IF;
    RETURN NULL;
END $$;
-- After the insert: it may have waited, in the index of unique keys, for one that replaces a job; what was replaced before
-- the key was free is seen only then.
CREATE TRIGGER hold_behind_replaced AFTER INSERT ON tenure.job FOR EACH ROW
    WHEN (NEW.unique_key IS NOT NULL) EXECUTE FUNCTION tenure.hold_behind_replaced();

CREATE FUNCTION tenure.release_held() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE tenure.job j
    SET held_back = NULL,
        state = CASE WHEN j.held_back THEN 'ready' ELSE j.state END,
        start_by = CASE WHEN j.held_back THEN coalesce(j.start_by, tenure.from_start(j.activate_at, j.start_within_s))
                        ELSE j.start_by END,
        deadline = CASE WHEN j.held_back THEN tenure.from_start(j.activate_at, j.job_timeout_s) ELSE j.deadline END,
        due = j.held_back AND j.activate_at <= now()
    WHERE (j.namespace, j.kind, j.unique_key) = (OLD.namespace, OLD.kind, OLD.unique_key) AND j.replaced_by IS NULL
      AND j.held_back IS NOT NULL AND j.state = 'waiting';
    RETURN NULL;
END $$;
CREATE TRIGGER release_held AFTER DELETE ON tenure.job FOR EACH ROW
    WHEN (OLD.replaced_by IS NOT NULL) EXECUTE FUNCTION tenure.release_held();
