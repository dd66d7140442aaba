-- Commands about queued deliveries, carried out by the owner of their shards: the row goes or moves,
-- the event is written and the command is answered in one statement. Never a row whose final dot may
-- have been sent: that has an open intent, of whatever epoch, under its attempt number. A row that is
-- not where it was found any more answers nothing: it has to be found again.
-- $1 owner, $2 shards, $3 epochs, $4..$10 the commands (each delivery once): id, shard, message,
-- recipient, where its row was found (NULL: nowhere), kind, new time; $11..$13 id, type and class of
-- the event, $14 now. Returns each answer and, of what was done, the attempt of its row.
-- What is open is asked outside of OFFSET 0: beside the id it would let a plan made on an empty table walk
-- an index of all open commands.
WITH fence AS MATERIALIZED (
  SELECT l.shard, l.epoch
  FROM shard_lease l
  JOIN unnest($2::int2[], $3::int8[]) AS held (shard, epoch)
    ON held.shard = l.shard AND held.epoch = l.epoch
  WHERE l.owner = $1::uuid
  ORDER BY l.shard
  FOR KEY SHARE OF l),
u AS MATERIALIZED (
  SELECT c.*
  FROM unnest($4::uuid[], $5::int2[], $6::uuid[], $7::int2[], $8::timestamptz[], $9::int2[], $10::timestamptz[],
              $11::uuid[], $12::int2[], $13::int2[])
       AS c (command, shard, message_id, rcpt, found_at, kind, due_at, event, event_type, class)
  JOIN fence f ON f.shard = c.shard),
sending AS MATERIALIZED (
  SELECT o.message_id, o.rcpt, o.attempt
  FROM fence f
  CROSS JOIN LATERAL (SELECT * FROM attempt_intent i WHERE i.shard = f.shard OFFSET 0) i
  CROSS JOIN LATERAL unnest(i.messages, i.rcpts, i.attempts) AS o (message_id, rcpt, attempt)
  JOIN u ON u.message_id = o.message_id AND u.rcpt = o.rcpt),
k AS MATERIALIZED (
  SELECT u.command, q.c,
         CASE WHEN EXISTS (SELECT FROM sending s WHERE s.message_id = u.message_id AND s.rcpt = u.rcpt
                             AND s.attempt = q.attempt) THEN 'late'
              WHEN u.kind = 3 AND q.attempt > 0 THEN 'late'
              WHEN u.kind = 1 AND u.found_at <= $14::timestamptz THEN 'due'
              ELSE 'do' END AS verdict
  FROM u
  CROSS JOIN LATERAL (
    SELECT q.ctid AS c, q.attempt FROM queue q
    WHERE q.shard = u.shard AND q.next_at = u.found_at AND q.message_id = u.message_id AND q.rcpt = u.rcpt
    OFFSET 0) q),
gone AS (
  DELETE FROM queue WHERE ctid = ANY (ARRAY(SELECT c FROM k WHERE verdict = 'do')) RETURNING *),
done AS MATERIALIZED (
  SELECT u.command, u.kind, u.due_at, u.event, u.event_type, u.class, g.shard, g.message_id, g.rcpt, g.account,
         g.stream, g.domain, g.pool, g.attempt, g.flags, g.first_at, g.expires_at
  FROM gone g
  JOIN u ON u.message_id = g.message_id AND u.rcpt = g.rcpt),
back AS (
  INSERT INTO queue (shard, next_at, message_id, rcpt, account, stream, domain, pool, attempt, flags, first_at,
                     expires_at)
  SELECT shard, due_at, message_id, rcpt, account, stream, domain, pool, attempt,
         CASE WHEN kind = 1 THEN flags & ~2 ELSE flags END,
         CASE WHEN kind = 3 THEN due_at ELSE first_at END,
         CASE WHEN kind = 3 THEN expires_at + (due_at - first_at) ELSE expires_at END
  FROM done WHERE kind IN (1, 3)),
logged AS (
  INSERT INTO event (id, subject, account, next_at, type, rcpt, sequence, attempt, flags, class)
  SELECT event, message_id, account, CASE WHEN kind = 3 THEN due_at END, event_type, rcpt,
         CASE WHEN kind = 3 THEN 1 ELSE attempt + 2 END, attempt,
         CASE WHEN kind = 3 THEN 0 ELSE 1 + (flags & 1) * 2 END, class
  FROM done WHERE kind <> 1),
answer AS MATERIALIZED (
  SELECT command, 0::int2 AS result FROM done
  UNION ALL SELECT command, CASE verdict WHEN 'due' THEN 0 ELSE 1 END::int2 FROM k WHERE verdict <> 'do'
  UNION ALL SELECT command, 1::int2 FROM u WHERE found_at IS NULL),
told_done AS (
  UPDATE queue_command SET result = 0, account = NULL WHERE ctid = ANY (ARRAY(
    SELECT c.ctid FROM answer a
    CROSS JOIN LATERAL (
      SELECT c.ctid, c.result FROM queue_command c WHERE c.id = a.command OFFSET 0) c
    WHERE a.result = 0 AND c.result IS NULL))),
told_late AS (
  UPDATE queue_command SET result = 1, account = NULL WHERE ctid = ANY (ARRAY(
    SELECT c.ctid FROM answer a
    CROSS JOIN LATERAL (
      SELECT c.ctid, c.result FROM queue_command c WHERE c.id = a.command OFFSET 0) c
    WHERE a.result = 1 AND c.result IS NULL)))
SELECT a.command, a.result, d.attempt FROM answer a LEFT JOIN done d ON d.command = a.command
