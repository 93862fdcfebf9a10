-- Who may call: bearer tokens, of which only a hash is kept, and subjects of client certificates.
CREATE TABLE tenure.token (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name        text NOT NULL,
    role        text NOT NULL CHECK (role IN ('admin', 'operator', 'submitter', 'viewer', 'worker', 'runner')),
    namespaces  text[] NOT NULL DEFAULT '{*}',
    pools       text[] NOT NULL DEFAULT '{*}',
    -- SHA-256 of the secret part; the secret itself is shown once, when the token is made, and kept nowhere.
    hash        bytea CHECK (length(hash) = 32),
    subject     text UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    created_by  text NOT NULL,
    expires_at  timestamptz,
    revoked_at  timestamptz,
    CHECK ((hash IS NULL) <> (subject IS NULL))
);

-- The key by which coordinators sign the tokens of attempts; one for all of them, made here.
CREATE TABLE tenure.signing_key (
    id          smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    key         bytea NOT NULL CHECK (length(key) = 32)
);
INSERT INTO tenure.signing_key (key)
SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- Who did what: written in the transaction of what was done where there is one, never changed, dropped by age.
CREATE TABLE tenure.audit (
    id          uuid PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT now(),
    caller      text NOT NULL,
    role        text NOT NULL,
    action      text NOT NULL,
    namespace   text,
    target      text NOT NULL,
    outcome     text NOT NULL,
    detail      json
);
CREATE INDEX audit_by_namespace ON tenure.audit (namespace, id DESC);

-- How fast a namespace may submit: new jobs per second (null: any number), and at once (null: what a second brings).
ALTER TABLE tenure.namespace
    ADD COLUMN submit_rate  double precision CHECK (submit_rate > 0),
    ADD COLUMN submit_burst bigint CHECK (submit_burst > 0);
