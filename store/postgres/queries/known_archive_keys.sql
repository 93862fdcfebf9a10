-- Which of these files of the archive the database knows: those that count, are being made, or are to be deleted.
SELECT key FROM tenure.archive_file WHERE key = ANY (%(keys)s::text[])
UNION SELECT archive_key FROM tenure.object_to_delete WHERE archive_key = ANY (%(keys)s::text[])
