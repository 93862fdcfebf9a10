-- What attempts write to their logs.
SELECT 1;
