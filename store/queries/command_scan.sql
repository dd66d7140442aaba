-- Looks for deliveries among the rows of a shard after a cursor, when nobody knows when they are due:
-- reads the index only. Returns what was found and, of a full page, its last row.
-- $1 shard, $2..$4 cursor, $5 rows at most, $6 messages, $7 recipients.
WITH page AS MATERIALIZED (
  SELECT q.next_at, q.message_id, q.rcpt, row_number() OVER (ORDER BY q.next_at, q.message_id, q.rcpt) AS n
  FROM queue q
  WHERE q.shard = $1::int2 AND (q.next_at, q.message_id, q.rcpt) > ($2::timestamptz, $3::uuid, $4::int2)
  ORDER BY q.next_at, q.message_id, q.rcpt
  LIMIT $5::int8)
SELECT p.next_at, p.message_id, p.rcpt, u.position
FROM page p
LEFT JOIN unnest($6::uuid[], $7::int2[]) WITH ORDINALITY AS u (message_id, rcpt, position)
  ON u.message_id = p.message_id AND u.rcpt = p.rcpt
WHERE u.position IS NOT NULL OR p.n = $5::int8
ORDER BY p.n
