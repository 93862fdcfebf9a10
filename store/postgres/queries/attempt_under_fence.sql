-- The attempt that executes under this fence.
SELECT j.attempt FROM tenure.job j WHERE j.id = %(id)s AND j.fence = %(fence)s AND j.state = 'executing'
