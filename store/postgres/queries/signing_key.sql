-- The key that signs what runners hold.
SELECT key FROM tenure.signing_key
