-- Outcomes into the truth: the queue row leaves with its final event, or comes back later with one
-- more attempt, in one statement. A row that was settled before (replay) is not there with that attempt
-- number any more and changes nothing. Returns the positions that were settled.
-- $1 owner, $2 shards, $3 epochs, $4..$8 keys (attempt = finished before), $9 next try or NULL = final,
-- $10 queue flags, $11..$24 the event. Event flag 8 puts the recipient on the suppression list (reason 1),
-- sorted for those who do it at the same time; message flag 4 is a test, which proves nothing.
WITH fence AS MATERIALIZED (
  SELECT l.shard, l.epoch
  FROM shard_lease l
  JOIN unnest($2::int2[], $3::int8[]) AS held (shard, epoch)
    ON held.shard = l.shard AND held.epoch = l.epoch
  WHERE l.owner = $1::uuid
  ORDER BY l.shard
  FOR KEY SHARE OF l),
k AS MATERIALIZED (
  SELECT u.position, q.ctid AS c
  FROM unnest($4::int2[], $5::timestamptz[], $6::uuid[], $7::int2[], $8::int2[])
       WITH ORDINALITY AS u (shard, next_at, message_id, rcpt, attempt, position)
  JOIN fence f ON f.shard = u.shard
  CROSS JOIN LATERAL (
    SELECT q.ctid FROM queue q
    WHERE q.shard = u.shard AND q.next_at = u.next_at AND q.message_id = u.message_id AND q.rcpt = u.rcpt
      AND q.attempt = u.attempt
    OFFSET 0) q),
gone AS (
  DELETE FROM queue WHERE ctid = ANY (ARRAY(SELECT c FROM k)) RETURNING *),
settled AS MATERIALIZED (
  SELECT u.position, g.shard, g.message_id, g.rcpt, g.account, g.stream, g.domain, g.pool, g.first_at,
         g.expires_at, g.attempt, u.next_at, u.flags, u.id, u.type, u.sequence, u.event_flags, u.class,
         u.code, u.enhanced, u.source, u.mx, u.tls, u.reply, u.duration_ms, u.transcript,
         u.attempt AS event_attempt
  FROM gone g
  JOIN unnest($6::uuid[], $7::int2[], $9::timestamptz[], $10::int2[], $11::uuid[], $12::int2[], $13::int2[],
              $14::int2[], $15::int2[], $16::int2[], $17::text[], $18::int4[], $19::text[], $20::text[],
              $21::text[], $22::int4[], $23::text[], $24::int2[])
       WITH ORDINALITY AS u (message_id, rcpt, next_at, flags, id, type, sequence, event_flags, class, code,
                             enhanced, source, mx, tls, reply, duration_ms, transcript, attempt, position)
    ON u.message_id = g.message_id AND u.rcpt = g.rcpt),
later AS (
  INSERT INTO queue (shard, next_at, message_id, rcpt, account, stream, domain, pool, attempt, flags, first_at,
                     expires_at)
  SELECT shard, next_at, message_id, rcpt, account, stream, domain, pool, attempt + 1, flags, first_at, expires_at
  FROM settled WHERE next_at IS NOT NULL),
logged AS (
  INSERT INTO event (id, subject, account, next_at, source, duration_ms, type, rcpt, sequence, attempt, flags,
                     class, code, enhanced, mx, tls, reply, transcript)
  SELECT id, message_id, account, next_at, source, duration_ms, type, rcpt, sequence, event_attempt, event_flags,
         class, code, enhanced, mx, tls, reply, transcript
  FROM settled),
suppressed AS (
  INSERT INTO suppression (id, account, reason, address, source_event, source_message, source_rcpt)
  SELECT DISTINCT ON (s.account, m.look_up_key)
         s.id, s.account, 1, m.address, s.id, s.message_id, s.rcpt
  FROM settled s
  CROSS JOIN LATERAL (
    SELECT m.recipients[s.rcpt + 1] AS address, lower(m.recipients[s.rcpt + 1] COLLATE "C") AS look_up_key
    FROM message m
    WHERE m.id = s.message_id AND m.flags & 4 = 0 AND s.rcpt < cardinality(m.recipients)
    OFFSET 0) m
  WHERE s.event_flags & 8 = 8
  ORDER BY s.account, m.look_up_key
  ON CONFLICT (account, lower(address COLLATE "C"), stream, reason) DO UPDATE SET expires_at = NULL
    WHERE suppression.expires_at IS NOT NULL)
SELECT position FROM settled
