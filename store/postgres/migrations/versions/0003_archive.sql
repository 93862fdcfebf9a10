-- The archive of what retention removes (coordinator/archive.py), and what else it leaves in the object store
-- (coordinator/leftovers.py).

-- Files of the archive. One is planned before anything is written, so that what a killed leader has written is known; done
-- is set in the transaction that removes its jobs from history. A plan that came to nothing is dropped, never gone on with.
CREATE TABLE tenure.archive_file (
    id             uuid PRIMARY KEY,
    namespace      text NOT NULL,
    key            text NOT NULL UNIQUE,  -- in the object store; its manifest lies beside it (model/archive.py)
    state          text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'done')),
    planned_at     timestamptz NOT NULL DEFAULT now(),
    jobs           integer NOT NULL CHECK (jobs > 0),
    ids            uuid[],                -- of its jobs, while it is planned
    first_id       uuid NOT NULL,
    last_id        uuid NOT NULL,
    made           int8range NOT NULL,    -- when its jobs were made, by their ids: milliseconds since 1970
    finished_from  timestamptz NOT NULL,
    finished_until timestamptz NOT NULL,  -- the last end of a job in it
    size_bytes     bigint,
    sha256         bytea CHECK (length(sha256) = 32),
    schema_version integer,
    marks          integer[],             -- of its jobs, once it is done: by them a job's file is found (model/archive.py)
    archived_at    timestamptz,
    policy_kind    text DEFAULT '',  -- of the policy that decided about its jobs, as it is called: that says how long
    policy_state   text DEFAULT '',  -- the file is kept (tenure.archive_end); null: there was none
    policy_namespace text DEFAULT '',
    storage_class  text,                  -- in which it was written; null: the bucket's default
    CONSTRAINT planned_has_ids CHECK ((state = 'planned') = (ids IS NOT NULL)),
    CONSTRAINT done_is_whole CHECK ((state = 'done') = (size_bytes IS NOT NULL AND sha256 IS NOT NULL
                                    AND schema_version IS NOT NULL AND marks IS NOT NULL AND archived_at IS NOT NULL))
);
-- No two plans at a time: so no job is in two.
CREATE UNIQUE INDEX archive_planned ON tenure.archive_file (state) WHERE state = 'planned';
CREATE INDEX archive_made ON tenure.archive_file USING gist (made) WHERE state = 'done';
CREATE INDEX archive_policy ON tenure.archive_file (policy_namespace, policy_kind, policy_state, archived_at)
    WHERE state = 'done';
CREATE INDEX archive_namespace ON tenure.archive_file (namespace, id) WHERE state = 'done';

-- What the leader deletes from the object store: all objects of a job that is gone, or a file of the archive that is, or that
-- never came to be.
CREATE TABLE tenure.object_to_delete (
    id          uuid PRIMARY KEY,          -- of the job, or the file
    namespace   text NOT NULL,
    archive_key text,                      -- of the file; null: a job's
    since       timestamptz NOT NULL DEFAULT now(),
    due_at      timestamptz NOT NULL DEFAULT now()  -- an hour later, when they have been deleted once
);
