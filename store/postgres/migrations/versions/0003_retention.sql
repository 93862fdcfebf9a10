-- How long history is kept.
SELECT 1;
