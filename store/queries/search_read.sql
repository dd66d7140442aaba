-- The event log after a cursor, for the index that mail is searched with: events of types $4. Complete for the
-- reasons given in events_read.sql.
-- $1 cursor xid, $2 cursor id, $3 lowest event id worth looking at (prunes partitions), $5 rows at most.
WITH horizon AS MATERIALIZED (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xid),
e AS MATERIALIZED (
  SELECT e.xid, e.id, e.subject, e.account, e.type, e.rcpt, e.sequence
  FROM event e
  WHERE (e.xid, e.id) > ($1::text::xid8, $2::uuid) AND e.xid < (SELECT xid FROM horizon) AND e.id >= $3::uuid
    AND e.type = ANY ($4::int2[])
  ORDER BY e.xid, e.id
  LIMIT $5::int8)
SELECT h.xid::text AS horizon, e.xid::text AS xid, e.id, e.subject, e.account, e.type, e.rcpt, e.sequence
FROM horizon h
LEFT JOIN e ON true
ORDER BY e.xid, e.id
