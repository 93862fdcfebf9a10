-- Credentials by id, or by the subject of a certificate; whether each is valid is for this clock to say.
SELECT id, name, role, namespaces, pools, hash, subject,
       revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AS is_valid
FROM tenure.token WHERE id = ANY (%(ids)s::uuid[])
UNION ALL
SELECT id, name, role, namespaces, pools, hash, subject,
       revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AS is_valid
FROM tenure.token WHERE subject = ANY (%(subjects)s::text[]) AND revoked_at IS NULL
