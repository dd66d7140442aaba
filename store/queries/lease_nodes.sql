-- Say that this node lives, and learn who else does. $1 node, $2 name, $3 queue group, $4 seconds.
WITH me AS (
  INSERT INTO node (id, name, queue_group, alive_until)
  VALUES ($1::uuid, $2::text, $3::int2, now() + make_interval(secs => $4::float8))
  ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until, name = excluded.name,
                                 queue_group = excluded.queue_group)
SELECT id FROM node WHERE queue_group = $3::int2 AND alive_until > now() AND id <> $1::uuid
UNION ALL SELECT $1::uuid
