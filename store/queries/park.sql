-- Park or transfer in bulk: a later time, perhaps another shard; the attempt stays, no event.
-- $1 owner, $2 shards, $3 epochs, $4..$8 keys, $9 new shard, $10 new time. Returns the positions moved.
WITH fence AS MATERIALIZED (
  SELECT l.shard, l.epoch
  FROM shard_lease l
  JOIN unnest($2::int2[], $3::int8[]) AS held (shard, epoch)
    ON held.shard = l.shard AND held.epoch = l.epoch
  WHERE l.owner = $1::uuid
  ORDER BY l.shard
  FOR KEY SHARE OF l),
k AS MATERIALIZED (
  SELECT q.ctid AS c
  FROM unnest($4::int2[], $5::timestamptz[], $6::uuid[], $7::int2[], $8::int2[])
       AS u (shard, next_at, message_id, rcpt, attempt)
  JOIN fence f ON f.shard = u.shard
  CROSS JOIN LATERAL (
    SELECT q.ctid FROM queue q
    WHERE q.shard = u.shard AND q.next_at = u.next_at AND q.message_id = u.message_id AND q.rcpt = u.rcpt
      AND q.attempt = u.attempt
    OFFSET 0) q),
gone AS (
  DELETE FROM queue WHERE ctid = ANY (ARRAY(SELECT c FROM k)) RETURNING *),
moved AS MATERIALIZED (
  SELECT u.position, u.shard, u.next_at, g.message_id, g.rcpt, g.account, g.stream, g.domain, g.pool, g.attempt,
         g.flags, g.first_at, g.expires_at
  FROM gone g
  JOIN unnest($6::uuid[], $7::int2[], $9::int2[], $10::timestamptz[])
       WITH ORDINALITY AS u (message_id, rcpt, shard, next_at, position)
    ON u.message_id = g.message_id AND u.rcpt = g.rcpt),
back AS (
  INSERT INTO queue (shard, next_at, message_id, rcpt, account, stream, domain, pool, attempt, flags, first_at,
                     expires_at)
  SELECT shard, next_at, message_id, rcpt, account, stream, domain, pool, attempt, flags, first_at, expires_at
  FROM moved)
SELECT position FROM moved
