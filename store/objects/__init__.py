"""The object store: results, artifacts, logs and archives, in a folder or in S3."""
