-- Deliveries of a message that are queued for one of some times, or among the last rows of one of some spans
-- of time (both ends belong to it): any number of others may be queued for the same moment.
-- $1 shard, $2 message, $3 times, $4 and $5 spans, $6 rows of a span at most.
SELECT q.rcpt, q.next_at
FROM unnest($3::timestamptz[]) AS t (at)
CROSS JOIN LATERAL (
  SELECT q.rcpt, q.next_at FROM queue q
  WHERE q.shard = $1::int2 AND q.next_at = t.at AND q.message_id = $2::uuid
  OFFSET 0) q
UNION
SELECT q.rcpt, q.next_at
FROM unnest($4::timestamptz[], $5::timestamptz[]) AS s (first, last)
CROSS JOIN LATERAL (
  SELECT q.message_id, q.rcpt, q.next_at FROM queue q
  WHERE q.shard = $1::int2 AND q.next_at >= s.first AND q.next_at <= s.last
  ORDER BY q.next_at DESC, q.message_id DESC, q.rcpt DESC
  LIMIT $6::int8) q
WHERE q.message_id = $2::uuid
ORDER BY 1
