-- Fail the transaction unless the attempt still executes under its fence.
SELECT tenure.assert_fence(%(id)s, %(fence)s)
