-- Give shards back after draining. The epoch stays: the next owner raises it. $1 owner, $2 shards, $3 epochs.
WITH mine AS MATERIALIZED (
  SELECT l.shard
  FROM shard_lease l
  JOIN unnest($2::int2[], $3::int8[]) AS held (shard, epoch) ON held.shard = l.shard AND held.epoch = l.epoch
  WHERE l.owner = $1::uuid
  ORDER BY l.shard
  FOR NO KEY UPDATE OF l)
UPDATE shard_lease l SET owner = NULL, expires_at = '-infinity'
FROM mine WHERE l.shard = mine.shard
