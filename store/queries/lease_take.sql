-- Take shards that are free, lapsed, or this node's own from an earlier life; always with a new epoch,
-- above $4 (the highest this node remembers: a promoted replica may have lost a take-over).
-- Waits for settles that run under the old epoch. $1 owner, $2 wanted shards, $3 seconds.
WITH free AS MATERIALIZED (
  SELECT l.shard FROM shard_lease l
  WHERE l.shard = ANY ($2::int2[]) AND (l.owner IS NULL OR l.owner = $1::uuid OR l.expires_at < now())
  ORDER BY l.shard
  FOR UPDATE OF l)
UPDATE shard_lease l
SET owner = $1::uuid, epoch = greatest(l.epoch, $4::int8) + 1, expires_at = now() + make_interval(secs => $3::float8)
FROM free WHERE l.shard = free.shard
RETURNING l.shard, l.epoch
