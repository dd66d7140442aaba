-- Cancel rows that no owner can be sending: due later than $5 (a minute from now). Returns what went.
-- $1 shard, $2 message, $3 event ids by recipient number (from 0), $4 event type.
WITH gone AS (
  DELETE FROM queue q
  WHERE q.shard = $1::int2 AND q.next_at > $5::timestamptz AND q.message_id = $2::uuid
  RETURNING q.message_id, q.rcpt, q.account, q.attempt),
logged AS (
  INSERT INTO event (id, subject, account, type, rcpt, sequence, attempt, flags)
  SELECT ($3::uuid[])[g.rcpt + 1], g.message_id, g.account, $4::int2, g.rcpt, g.attempt + 2, g.attempt, 1
  FROM gone g)
SELECT rcpt FROM gone
