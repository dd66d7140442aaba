-- Keep what this node holds. Only expires_at changes, so running settles (FOR KEY SHARE) do not wait.
-- $1 owner, $2 shards, $3 epochs, $4 seconds. Returns the shards still held.
WITH mine AS MATERIALIZED (
  SELECT l.shard
  FROM shard_lease l
  JOIN unnest($2::int2[], $3::int8[]) AS held (shard, epoch) ON held.shard = l.shard AND held.epoch = l.epoch
  WHERE l.owner = $1::uuid
  ORDER BY l.shard
  FOR NO KEY UPDATE OF l)
UPDATE shard_lease l SET expires_at = now() + make_interval(secs => $4::float8)
FROM mine WHERE l.shard = mine.shard
RETURNING l.shard
