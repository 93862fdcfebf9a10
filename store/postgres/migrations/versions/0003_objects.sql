-- Results and artifacts that lie in the object store.
SELECT 1;
