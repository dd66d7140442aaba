-- Message and content of deliveries about to be sent, and which of the recipients are suppressed (and until
-- when: a time that is over is the caller's to see). Content that several of them share comes with the first of
-- them only. OFFSET 0 keeps this a look-up per id: id = ANY($1) would visit every partition.
SELECT m.id, m.account, m.stream, m.domain, m.flags, m.sender, m.recipients, m.rfc_message_id,
       m.header, m.variables, m.content_id,
       c.codec, c.seal_key, c.header_octets, c.octets, c.body_hash, c.bytes,
       x.suppressed, x.suppressed_until
FROM (SELECT m.*, row_number() OVER (PARTITION BY m.content_id) AS sharer
      FROM unnest($1::uuid[]) AS u (id)
      CROSS JOIN LATERAL (SELECT * FROM message m WHERE m.id = u.id OFFSET 0) m) m
LEFT JOIN LATERAL (SELECT * FROM content c
                   WHERE m.sharer = 1 AND c.class = m.content_class AND c.id = m.content_id OFFSET 0) c ON true
CROSS JOIN LATERAL (
  SELECT array_agg((r.position - 1)::int2) AS suppressed, array_agg(s.expires_at) AS suppressed_until
  FROM unnest(m.recipients) WITH ORDINALITY AS r (address, position)
  CROSS JOIN LATERAL (
    SELECT s.expires_at FROM suppression s
    WHERE s.account = m.account AND lower(s.address COLLATE "C") = lower(r.address COLLATE "C")
      AND (s.stream IS NULL OR s.stream = m.stream)
      AND (s.reason <> 3 OR (SELECT t.class FROM stream t WHERE t.id = m.stream) = 1)
    ORDER BY s.expires_at DESC NULLS FIRST
    LIMIT 1) s) x
