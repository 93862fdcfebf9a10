-- What takes part of retention and of the archive; and, last, what shuts out whoever writes history until the end.

-- When a file's time is over; null: never. Its policy says so, as it is now; and one that came after the file was planned, which
-- would decide about some of its jobs now, if it says later. One that was there before did not cover them. Five seconds are
-- for those that came between the look at the jobs and the plan.
CREATE VIEW tenure.archive_end AS
SELECT f.id, (
    SELECT CASE WHEN bool_or(is_own) AND bool_and(archive_keep_s IS NOT NULL)
                THEN f.archived_at + make_interval(secs => max(archive_keep_s)) END
    FROM (
        SELECT p.archive_keep_s, (p.namespace, p.kind, p.state) = (f.policy_namespace, f.policy_kind, f.policy_state) AS is_own
        FROM tenure.retention_policy p
        WHERE (p.namespace, p.kind, p.state) = (f.policy_namespace, f.policy_kind, f.policy_state)
           OR (p.archive AND p.created_at >= f.planned_at - interval '5 s' AND p.namespace IN ('', f.namespace)
               AND (f.policy_kind = '' OR p.kind IN ('', f.policy_kind))
               AND (f.policy_state = '' OR p.state IN ('', f.policy_state))
               AND (p.namespace <> '', p.kind <> '', p.state <> '')
                   > (f.policy_namespace <> '', f.policy_kind <> '', f.policy_state <> ''))
    ) deciding
) AS expires_at
FROM tenure.archive_file f;

-- What a listing of jobs that did not complete walks through, without looking at all that did. Only they write it.
CREATE INDEX history_unsuccessful ON tenure.history (id) WHERE state IN ('failed', 'canceled');
