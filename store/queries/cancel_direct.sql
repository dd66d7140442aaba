-- Cancel rows that no owner can be sending: due later than $7 (a minute from now). Returns what went.
-- $1..$4 keys, $5 event ids, $6 event type. Where $8 is not NULL it is the caller's clock, and nothing is cancelled
-- by one that is 20 s away from the server's: those who send are checked in the same way.
WITH k AS MATERIALIZED (
  SELECT q.ctid AS c
  FROM unnest($1::int2[], $2::timestamptz[], $3::uuid[], $4::int2[]) AS u (shard, next_at, message_id, rcpt)
  CROSS JOIN LATERAL (
    SELECT q.ctid FROM queue q
    WHERE q.shard = u.shard AND q.next_at = u.next_at AND q.message_id = u.message_id AND q.rcpt = u.rcpt
      AND q.next_at > $7::timestamptz
      AND ($8::timestamptz IS NULL
           OR $8::timestamptz BETWEEN clock_timestamp() - interval '20 seconds' AND clock_timestamp() + interval '20 seconds')
    OFFSET 0) q),
gone AS (
  DELETE FROM queue WHERE ctid = ANY (ARRAY(SELECT c FROM k))
  RETURNING message_id, rcpt, account, attempt, flags),
logged AS (
  INSERT INTO event (id, subject, account, type, rcpt, sequence, attempt, flags)
  SELECT u.id, g.message_id, g.account, $6::int2, g.rcpt, g.attempt + 2, g.attempt, 1 + (g.flags & 1) * 2
  FROM gone g
  JOIN unnest($3::uuid[], $4::int2[], $5::uuid[]) AS u (message_id, rcpt, id)
    ON u.message_id = g.message_id AND u.rcpt = g.rcpt)
SELECT message_id, rcpt FROM gone
