-- Which of these messages an account sent, how, and from which of its domains.
-- OFFSET 0 keeps this a look-up per id: id = ANY($1) would visit every partition, and with the account
-- beside it might walk through all mail of the account. $1 ids, $2 account.
SELECT u.id, m.flags, d.name
FROM unnest($1::uuid[]) AS u (id)
CROSS JOIN LATERAL (SELECT m.account, m.flags, m.domain FROM message m WHERE m.id = u.id OFFSET 0) m
LEFT JOIN LATERAL (SELECT d.name FROM domain d WHERE d.id = m.domain OFFSET 0) d ON true
WHERE m.account = $2::int4
