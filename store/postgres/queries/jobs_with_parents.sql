-- Jobs, active or finished, with the parents that they were submitted with. As in jobs_by_id, seen twice is finished.
-- The array is selected, as in ready_window: planning a read of every partition takes several times as long as the read.
SELECT DISTINCT ON (j.id) j.*,
       ARRAY(SELECT d.parent_id FROM tenure.dependency d
             WHERE d.child_id = j.id AND d.parked_attempt IS NULL ORDER BY d.parent_id) AS parents
FROM tenure.jobs j WHERE j.id = ANY ((SELECT %(ids)s::uuid[])::uuid[]) ORDER BY j.id, j.finished_at NULLS LAST
