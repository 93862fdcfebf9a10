-- Write the edges of new jobs, and have those begin that need not wait.
SELECT tenure.insert_held_edges(%(children)s::uuid[], %(parents)s::uuid[])
