-- The key that all coordinators sign with.
SELECT key FROM tenure.signing_key
