-- The time, by the clock that judges what is due.
SELECT now() AS now
