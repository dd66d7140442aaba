-- The gate before the final dot. Notes which deliveries may be sent and returns their positions: only
-- those whose queue row still exists with that attempt number, in shards still held at that epoch.
-- $1 owner, $2 shards, $3 epochs, $4..$8 keys, $9 batch number, $10 noted at.
WITH fence AS MATERIALIZED (
  SELECT l.shard, l.epoch
  FROM shard_lease l
  JOIN unnest($2::int2[], $3::int8[]) AS held (shard, epoch)
    ON held.shard = l.shard AND held.epoch = l.epoch
  WHERE l.owner = $1::uuid
  ORDER BY l.shard
  FOR KEY SHARE OF l),
granted AS MATERIALIZED (
  SELECT u.position, u.shard, f.epoch, u.message_id, u.rcpt, u.attempt
  FROM unnest($4::int2[], $5::timestamptz[], $6::uuid[], $7::int2[], $8::int2[])
       WITH ORDINALITY AS u (shard, next_at, message_id, rcpt, attempt, position)
  JOIN fence f ON f.shard = u.shard
  CROSS JOIN LATERAL (
    SELECT FROM queue q
    WHERE q.shard = u.shard AND q.next_at = u.next_at AND q.message_id = u.message_id AND q.rcpt = u.rcpt
      AND q.attempt = u.attempt
    OFFSET 0) q),
noted AS (
  INSERT INTO attempt_intent (shard, epoch, batch, owner, noted_at, messages, rcpts, attempts)
  SELECT g.shard, g.epoch, $9::int8, $1::uuid, $10::timestamptz, array_agg(g.message_id ORDER BY g.position),
         array_agg(g.rcpt ORDER BY g.position), array_agg(g.attempt ORDER BY g.position)
  FROM granted g
  GROUP BY g.shard, g.epoch)
SELECT position FROM granted
