-- What attempts write to their logs: the head of each says how much there is and where; its lines lie in batches, until the
-- leader moves those of ended attempts into the object store (coordinator/move_logs.py). An attempt that writes nothing has
-- neither.
CREATE TABLE tenure.log_head (
    job_id       uuid NOT NULL,
    attempt      integer NOT NULL,
    fence        bigint NOT NULL,
    namespace    text NOT NULL,
    first_seq    bigint NOT NULL,      -- of the batch that was written last
    last_seq     bigint NOT NULL,      -- the number of the last line: they are counted from 1 in each attempt
    lines        bigint NOT NULL,
    bytes        bigint NOT NULL,      -- of the lines as they are kept
    is_full      boolean NOT NULL DEFAULT false,
    written_at   timestamptz NOT NULL DEFAULT now(),
    moved_at     timestamptz,          -- since then the lines lie in the object store
    object_bytes bigint,               -- compressed, once they do
    PRIMARY KEY (job_id, attempt)
) WITH (fillfactor = 80);
-- What is still to be moved. No column of it ever changes but moved_at, so that a batch changes no index.
CREATE INDEX log_unmoved ON tenure.log_head (job_id, attempt) WHERE moved_at IS NULL;

CREATE TABLE tenure.log (
    job_id    uuid NOT NULL,
    attempt   integer NOT NULL,
    first_seq bigint NOT NULL,
    last_seq  bigint NOT NULL,
    lines     text NOT NULL,           -- a JSON object per line (model/logs.py), each with a line end
    PRIMARY KEY (job_id, attempt, first_seq)
);
