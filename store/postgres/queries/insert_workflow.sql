-- A workflow, in the transaction that writes its first members.
INSERT INTO tenure.workflow (id, namespace, name, jobs) VALUES (%(id)s, %(namespace)s, %(name)s, %(jobs)s)
