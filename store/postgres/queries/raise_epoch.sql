-- Raise the epoch by one, or to the one asked for; no row if that is not higher. Nothing is claimed for the longest TTL
-- in use from the next term on. Every fence given after the commit is higher than any given before.
WITH raised AS (
    UPDATE tenure.cluster
    SET epoch = coalesce(%(epoch)s::integer, epoch + 1),
        claims_frozen_until = now() + make_interval(secs => coalesce((SELECT max(ttl_s) FROM tenure.job), 0))
    WHERE %(epoch)s::integer IS NULL OR %(epoch)s::integer > epoch
    RETURNING epoch
), noted AS (
    INSERT INTO tenure.audit (id, caller, role, action, target, outcome, detail)
    SELECT gen_random_uuid(), left('tenure db, as ' || session_user, 255), 'admin', 'epoch.raise', 'epoch', 'ok',
           json_build_object('epoch', r.epoch)
    FROM raised r
)
SELECT r.epoch, tenure.advance_fences() IS NULL AS has_advanced FROM raised r
