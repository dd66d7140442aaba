-- Message and content of deliveries about to be sent. Content that several of them share comes with
-- the first of them only. OFFSET 0 keeps this a look-up per id: id = ANY($1) would visit every
-- partition.
SELECT m.id, m.account, m.stream, m.domain, m.flags, m.sender, m.recipients, m.rfc_message_id,
       m.header, m.variables, m.content_id,
       c.codec, c.seal_key, c.header_octets, c.octets, c.body_hash, c.bytes
FROM (SELECT m.*, row_number() OVER (PARTITION BY m.content_id) AS sharer
      FROM unnest($1::uuid[]) AS u (id)
      CROSS JOIN LATERAL (SELECT * FROM message m WHERE m.id = u.id OFFSET 0) m) m
LEFT JOIN LATERAL (SELECT * FROM content c
                   WHERE m.sharer = 1 AND c.class = m.content_class AND c.id = m.content_id OFFSET 0) c ON true
