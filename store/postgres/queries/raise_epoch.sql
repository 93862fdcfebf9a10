-- Raise the epoch, to the one asked for if there is such; no row if that is not higher. A term that begins within the longest
-- TTL in use from now claims nothing for the rest of that. Every fence given after the commit is higher than any given before.
WITH raised AS (
    UPDATE tenure.cluster
    SET epoch = coalesce(%(epoch)s::integer, greatest(epoch + 1, tenure.epoch_by_clock())),
        claims_frozen_until = greatest(
            claims_frozen_until, now() + make_interval(secs => coalesce((SELECT max(ttl_s) FROM tenure.job), 0)))
    WHERE %(epoch)s::integer IS NULL OR %(epoch)s::integer > epoch
    RETURNING epoch
), noted AS (
    INSERT INTO tenure.audit (id, caller, role, action, target, outcome, detail)
    SELECT gen_random_uuid(), left('tenure db, as ' || session_user, 255), 'admin', 'epoch.raise', 'epoch', 'ok',
           json_build_object('epoch', r.epoch)
    FROM raised r
)
SELECT r.epoch, tenure.advance_fences() IS NULL AS has_advanced FROM raised r
