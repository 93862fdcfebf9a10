-- Fail the transaction unless this leader's term is the one recorded last.
SELECT tenure.assert_term(%(leader)s, %(term)s)
