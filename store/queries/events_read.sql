-- The event log after a cursor, for the webhook dispatchers $1: complete with any number of writers,
-- because only transactions below the oldest running one are read. horizon = that bound; a short read has
-- seen everything below it. An endpoint gets what was committed after it was made.
-- $2 cursor xid, $3 cursor id, $4 lowest event id worth looking at (prunes partitions), $5 rows at most.
WITH horizon AS MATERIALIZED (SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xid),
e AS MATERIALIZED (
  SELECT e.*, w.endpoints
  FROM event e
  CROSS JOIN LATERAL (
    SELECT array_agg(w.id) AS endpoints FROM webhook_endpoint w
    WHERE w.account = e.account AND w.enabled AND e.type = ANY (w.types) AND w.created_xid < e.xid) w
  WHERE (e.xid, e.id) > ($2::text::xid8, $3::uuid) AND e.xid < (SELECT xid FROM horizon) AND e.id >= $4::uuid
    AND e.account % 16 = ANY ($1::int2[]) AND w.endpoints IS NOT NULL
    AND EXISTS (SELECT FROM webhook_endpoint)
  ORDER BY e.xid, e.id
  LIMIT $5::int8)
SELECT h.xid::text AS horizon, e.xid::text AS xid, e.endpoints, e.id, e.subject, e.next_at, e.account,
       (SELECT coalesce(o.address, o.ehlo) FROM source o WHERE o.id = e.source) AS source, e.duration_ms, e.type, e.rcpt, e.sequence, e.attempt, e.flags, e.class, e.code, e.enhanced, e.mx, e.tls,
       e.reply, m.sender, m.rfc_message_id, m.subject AS message_subject, m.recipients[e.rcpt + 1] AS recipient,
       m.tags, m.metadata, s.name AS stream
FROM horizon h
LEFT JOIN e ON true
LEFT JOIN LATERAL (SELECT * FROM message m WHERE m.id = e.subject OFFSET 0) m ON true
LEFT JOIN stream s ON s.id = m.stream
ORDER BY e.xid, e.id
