-- Which of these messages an account sent, and how.
-- OFFSET 0 keeps this a look-up per id: id = ANY($1) would visit every partition, and with the account
-- beside it might walk through all mail of the account. $1 ids, $2 account.
SELECT u.id, m.flags
FROM unnest($1::uuid[]) AS u (id)
CROSS JOIN LATERAL (SELECT m.account, m.flags FROM message m WHERE m.id = u.id OFFSET 0) m
WHERE m.account = $2::int4
