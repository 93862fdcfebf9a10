-- What each role may do. Run by `tenure db roles`, and in the transaction of every migration where the roles exist, so that
-- a new table comes with its grants. What is not named here is not allowed: a test knows every table of the schema.
-- SELECT ... FOR UPDATE and its like need UPDATE.
REVOKE ALL ON ALL TABLES IN SCHEMA tenure FROM PUBLIC, tenure_coordinator, tenure_submitter, tenure_readonly;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA tenure FROM PUBLIC, tenure_coordinator, tenure_submitter, tenure_readonly;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tenure FROM PUBLIC, tenure_coordinator, tenure_submitter, tenure_readonly;
REVOKE ALL ON SCHEMA tenure FROM PUBLIC, tenure_coordinator, tenure_submitter, tenure_readonly;
GRANT USAGE ON SCHEMA tenure TO tenure_coordinator, tenure_submitter, tenure_readonly;
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT * FROM (VALUES
            -- table           coordinator                         readonly
            ('job',            'SELECT, INSERT, UPDATE, DELETE',   'SELECT'),
            ('history',        'SELECT, INSERT, UPDATE',           'SELECT'),  -- UPDATE: retried_by, deleted_at
            ('attempt',        'SELECT, INSERT',                   'SELECT'),
            ('jobs',           'SELECT',                           'SELECT'),
            ('ended',          'SELECT',                           'SELECT'),
            ('week',           'SELECT',                           'SELECT'),
            ('archive_end',    'SELECT',                           'SELECT'),
            ('dependency',     'SELECT, INSERT, UPDATE',           'SELECT'),
            ('workflow',       'SELECT, INSERT, UPDATE',           'SELECT'),
            ('retention_policy', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT'),
            ('history_count',  'SELECT, INSERT, UPDATE, DELETE',   'SELECT'),
            ('history_counted', 'SELECT, UPDATE',                  'SELECT'),
            ('legal_hold',     'SELECT, INSERT, UPDATE, DELETE',   'SELECT'),
            ('artifact',       'SELECT, INSERT, UPDATE',           'SELECT'),
            ('upload',         'SELECT, INSERT, UPDATE, DELETE',   'SELECT'),
            ('archive_file',   'SELECT, INSERT, UPDATE, DELETE',   'SELECT'),
            ('object_to_delete', 'SELECT, INSERT, UPDATE, DELETE', 'SELECT'),
            ('schedule',       'SELECT, INSERT, UPDATE, DELETE',   'SELECT'),
            ('pool',           'SELECT, INSERT, DELETE',           'SELECT'),
            ('lane',           'SELECT, INSERT, UPDATE, DELETE',   'SELECT'),
            ('pause',          'SELECT, INSERT, UPDATE, DELETE',   'SELECT'),
            ('job_limit',      'SELECT, INSERT, UPDATE, DELETE',   'SELECT'),
            ('bucket',         'SELECT, INSERT, UPDATE, DELETE',   'SELECT'),
            ('namespace',      'SELECT, INSERT, UPDATE',           'SELECT'),
            ('kind',           'SELECT, INSERT, UPDATE, DELETE',   'SELECT'),
            ('cluster',        'SELECT, UPDATE',                   'SELECT'),
            ('schema_version', 'SELECT',                           'SELECT'),
            ('schema_oldest',  'SELECT',                           'SELECT'),
            ('idempotency',    'SELECT, INSERT, UPDATE, DELETE',   NULL),
            ('log_head',       'SELECT, INSERT, UPDATE',           'SELECT'),
            ('log',            'SELECT, INSERT, DELETE',           'SELECT'),
            ('token',          'SELECT, INSERT, UPDATE',           NULL),      -- hashes; UPDATE: revoked_at
            ('signing_key',    'SELECT',                           NULL),
            ('audit',          'SELECT, INSERT',                   NULL)       -- nobody changes what was written
        ) AS wanted (name, coordinator, readonly)
        WHERE to_regclass('tenure.' || name) IS NOT NULL
    LOOP
        EXECUTE format('GRANT %s ON tenure.%I TO tenure_coordinator', one.coordinator, one.name);
        IF one.readonly IS NOT NULL THEN
            EXECUTE format('GRANT %s ON tenure.%I TO tenure_readonly', one.readonly, one.name);
        END IF;
    END LOOP;
    -- Functions act as who calls them, but for six that act as the owner: make_partitions, so that a coordinator has
    -- partitions made without a right to make tables, drop_empty_partition, which drops them when nothing is left in them,
    -- remove_history and drop_old_audit, so that it cannot delete from history but by the policies, nor from the log but
    -- by age, advance_fences, so that it moves the sequence ahead and never back, and submit_job.
    IF to_regclass('tenure.fence_sequence') IS NOT NULL THEN
        GRANT USAGE ON SEQUENCE tenure.fence_sequence TO tenure_coordinator;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tenure TO tenure_coordinator;
        GRANT EXECUTE ON FUNCTION tenure.submit_job TO tenure_submitter;
    END IF;
END $$;
