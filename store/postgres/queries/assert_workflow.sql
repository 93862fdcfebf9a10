-- Fail the transaction if the workflow that it adds members to is canceled.
SELECT tenure.assert_workflow(%(id)s)
