-- Read every owned shard forward from its cursor: keys only, no row is written.
-- $1 shards with their cursors $2..$4, $5 now, $6 rows a shard at most.
SELECT q.shard, q.next_at, q.message_id, q.rcpt, q.account, q.stream, q.domain, q.pool, q.attempt, q.flags,
       q.first_at, q.expires_at
FROM unnest($1::int2[], $2::timestamptz[], $3::uuid[], $4::int2[]) AS c (shard, next_at, message_id, rcpt)
CROSS JOIN LATERAL (
  SELECT * FROM queue q
  WHERE q.shard = c.shard AND (q.next_at, q.message_id, q.rcpt) > (c.next_at, c.message_id, c.rcpt)
    AND q.next_at <= $5::timestamptz
  ORDER BY q.next_at, q.message_id, q.rcpt
  LIMIT $6::int8) q
