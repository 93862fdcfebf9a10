-- A dump that was restored is told from the database that it was made of: in another server by the system's identifier,
-- in the same one by the numbers that the database and the table have got anew. Copies of the files keep all three.
ALTER TABLE tenure.cluster ADD COLUMN postgres_identity text;

-- Not the timeline: it changes in one and the same database (tenure.timeline).
CREATE FUNCTION tenure.postgres_identity() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()),
                     (SELECT oid FROM pg_database WHERE datname = current_database()), 'tenure.cluster'::regclass::oid)
$$;

-- Move the sequence of fences to where no life of this database has been: seconds since 2026 by Postgres' clock, 32,768
-- numbers for each, so that nothing catches up with it. A dump that is restored for the second time knows nothing of the
-- fences of the first. As the owner, since it may only move ahead: coordinators cannot set the sequence.
CREATE FUNCTION tenure.advance_fences() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT setval('tenure.fence_sequence', n.ahead)
    FROM (SELECT (extract(epoch FROM clock_timestamp() - timestamptz '2026-01-01 00:00:00+00')::bigint << 15) AS ahead) n,
         tenure.fence_sequence s
    WHERE n.ahead > s.last_value
$$;
REVOKE ALL ON FUNCTION tenure.advance_fences() FROM PUBLIC;
