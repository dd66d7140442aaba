-- Notes a command for every delivery of an account that fits a filter, among the rows of a shard after a
-- cursor, unless the same is wanted of it already. Returns the last row looked at, how many there were, and how
-- many commands were noted.
-- $1 shard, $2..$4 cursor, $5 rows at most, $6 account, $7 stream, $8 domain, $9 tag (each NULL: any),
-- $10 mail of test keys only, $11 status (NULL: any), $12 and $13 message ids from and below, $14 now,
-- $15 kind, $16 names of sending domains (NULL: any). A retry of many (1) leaves alone what is held, for it may have
-- arrived, and what is scheduled, unless scheduled mail is what is asked for.
WITH page AS MATERIALIZED (
  SELECT q.next_at, q.message_id, q.rcpt, q.account, q.stream, q.domain, q.attempt, q.first_at, q.flags,
         row_number() OVER (ORDER BY q.next_at, q.message_id, q.rcpt) AS n
  FROM queue q
  WHERE q.shard = $1::int2 AND (q.next_at, q.message_id, q.rcpt) > ($2::timestamptz, $3::uuid, $4::int2)
  ORDER BY q.next_at, q.message_id, q.rcpt
  LIMIT $5::int8),
mine AS MATERIALIZED (
  SELECT p.next_at, p.message_id, p.rcpt
  FROM page p
  WHERE p.account = $6::int4
    AND ($7::int4 IS NULL OR p.stream = $7::int4)
    AND ($8::int4 IS NULL OR p.domain = $8::int4)
    AND p.message_id >= $12::uuid AND p.message_id < $13::uuid
    AND CASE $11::int2
          WHEN 1 THEN p.attempt = 0 AND p.first_at > $14::timestamptz
          WHEN 2 THEN p.attempt = 0 AND p.first_at <= $14::timestamptz
          WHEN 3 THEN p.attempt > 0
          ELSE true END
    AND ($15::int2 <> 1 OR (p.next_at > $14::timestamptz AND p.flags & 2 = 0
                            AND (p.attempt > 0 OR p.first_at <= $14::timestamptz OR $11::int2 = 1)))),
wanted AS MATERIALIZED (
  SELECT p.next_at, p.message_id, p.rcpt
  FROM mine p
  CROSS JOIN LATERAL (SELECT m.tags, m.flags, m.domain FROM message m WHERE m.id = p.message_id OFFSET 0) m
  WHERE ($9::text IS NULL OR $9::text = ANY (m.tags)) AND (NOT $10::boolean OR m.flags & 4 <> 0)
    AND ($16::text[] IS NULL
         OR m.domain IN (SELECT d.id FROM domain d WHERE d.account = $6::int4 AND d.name = ANY ($16::text[])))
    -- LIMIT keeps this a look-up per delivery.
    AND (SELECT true FROM queue_command c
         WHERE c.message_id = p.message_id AND c.rcpt = p.rcpt AND c.kind = $15::int2 AND c.result IS NULL
         LIMIT 1) IS NULL),
noted AS (
  INSERT INTO queue_command (id, shard, message_id, rcpt, kind, due_at, seen_at, bulk, noted_at, account)
  SELECT gen_random_uuid(), $1::int2, w.message_id, w.rcpt, $15::int2, NULL, w.next_at, true, $14::timestamptz, $6::int4
  FROM wanted w)
SELECT p.next_at, p.message_id, p.rcpt, p.n AS looked_at, (SELECT count(*) FROM wanted) AS matched
FROM page p ORDER BY p.n DESC LIMIT 1
