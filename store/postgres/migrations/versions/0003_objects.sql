-- Results and artifacts that lie in the object store.
-- One row per file that an attempt has saved and that is whole in the object store (model/objects.py says under which key);
-- a result too large for its job is one of them. A row without a hash is a result that could not be saved.
CREATE TABLE tenure.artifact (
    job_id       uuid NOT NULL,
    attempt      integer NOT NULL,
    name         text NOT NULL,
    size_bytes   bigint NOT NULL CHECK (size_bytes >= 0),
    sha256       bytea CHECK (length(sha256) = 32),
    content_type text NOT NULL,
    lost         text,  -- why there is nothing to read
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, attempt, name),
    CHECK ((sha256 IS NULL) = (lost IS NOT NULL))
);

-- How many uploads an attempt has begun, whatever became of them: noted before it is told where to send them, so that
-- removal knows what may lie in the object store. Only attempts that upload have a row.
CREATE TABLE tenure.upload (
    job_id  uuid NOT NULL,
    attempt integer NOT NULL,
    begun   integer NOT NULL,
    PRIMARY KEY (job_id, attempt)
);

-- Which folder the object store is, by the id that lies in it (store/objects/folder.py); null: not known yet.
ALTER TABLE tenure.cluster ADD COLUMN object_store_id text;
