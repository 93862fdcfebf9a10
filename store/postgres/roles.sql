-- The roles of least privilege, and who owns the schema. Docs: docs/LEAST_PRIVILEGE.md.
-- Roles belong to the whole cluster of databases, so this is no migration: an administrator runs it, with `tenure db roles`
-- or psql. It can be repeated, before the first migration or at any time after it. grants.sql, which follows, says what
-- each role may do.
DO $$
DECLARE
    missing text;
BEGIN
    FOREACH missing IN ARRAY ARRAY['tenure_migrator', 'tenure_coordinator', 'tenure_submitter', 'tenure_readonly'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = missing) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', missing);
        END IF;
    END LOOP;
END $$;

-- The schema and all in it belong to tenure_migrator. Who owned it until now becomes a member of tenure_migrator, so that
-- what runs as that user goes on; take it out once nothing does.
DO $$
DECLARE
    former name := (SELECT r.rolname FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
                    WHERE n.nspname = 'tenure');
    may_create constant boolean := has_database_privilege('tenure_migrator', current_database(), 'CREATE');
    alter_owner text;
BEGIN
    IF NOT pg_has_role('tenure_migrator', 'USAGE') THEN  -- whoever hands a thing over must be a member of who takes it
        EXECUTE format('GRANT tenure_migrator TO %I', current_user);
    END IF;
    IF former IS NULL THEN
        CREATE SCHEMA tenure;
        former := current_user;
    ELSIF former <> 'tenure_migrator' AND NOT pg_has_role(former, 'tenure_migrator', 'USAGE') THEN
        EXECUTE format('GRANT tenure_migrator TO %I', former);
    END IF;
    IF former <> 'tenure_migrator' THEN
        IF NOT may_create THEN  -- an owner of schemas must be able to make some, at this moment
            EXECUTE format('GRANT CREATE ON DATABASE %I TO tenure_migrator', current_database());
        END IF;
        ALTER SCHEMA tenure OWNER TO tenure_migrator;
        IF NOT may_create THEN
            EXECUTE format('REVOKE CREATE ON DATABASE %I FROM tenure_migrator', current_database());
        END IF;
    END IF;
    FOR alter_owner IN
        SELECT format(CASE c.relkind WHEN 'v' THEN 'ALTER VIEW %s' WHEN 'S' THEN 'ALTER SEQUENCE %s'
                                     WHEN 'c' THEN 'ALTER TYPE %s' ELSE 'ALTER TABLE %s' END, c.oid::regclass)
        FROM pg_catalog.pg_class c
        WHERE c.relnamespace = 'tenure'::regnamespace AND c.relowner <> 'tenure_migrator'::regrole
          AND c.relkind IN ('r', 'p', 'v', 'S', 'c')
        UNION ALL
        SELECT format('ALTER FUNCTION %s', p.oid::regprocedure) FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = 'tenure'::regnamespace AND p.proowner <> 'tenure_migrator'::regrole
    LOOP
        EXECUTE alter_owner || ' OWNER TO tenure_migrator';
    END LOOP;
END $$;
