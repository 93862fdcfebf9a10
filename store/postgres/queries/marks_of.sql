-- What of some jobs changes while they are watched.
SELECT id, state, attempt, progress, progress_message, cancel_requested, namespace FROM tenure.jobs WHERE id = ANY (%(ids)s)
