-- Forget intent batches whose deliveries all have an outcome in the queue tables.
-- $1 owner, $2 shards, $3 epochs (the fence), $4..$6: shard, epoch and the first batch still open.
WITH fence AS MATERIALIZED (
  SELECT l.shard, l.epoch
  FROM shard_lease l
  JOIN unnest($2::int2[], $3::int8[]) AS held (shard, epoch)
    ON held.shard = l.shard AND held.epoch = l.epoch
  WHERE l.owner = $1::uuid
  ORDER BY l.shard
  FOR KEY SHARE OF l)
DELETE FROM attempt_intent i
USING unnest($4::int2[], $5::int8[], $6::int8[]) AS low (shard, epoch, batch), fence f
WHERE f.shard = low.shard AND i.shard = low.shard AND i.epoch = low.epoch AND i.batch < low.batch
