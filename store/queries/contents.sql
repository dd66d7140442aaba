-- Message and content of deliveries about to be sent. OFFSET 0 keeps this a look-up per id:
-- id = ANY($1) would visit every partition.
SELECT u.id, m.account, m.stream, m.domain, m.flags, m.sender, m.recipients, m.rfc_message_id,
       c.codec, c.seal_key, c.header_octets, c.octets, c.body_hash, c.bytes
FROM unnest($1::uuid[]) AS u (id)
CROSS JOIN LATERAL (SELECT * FROM message m WHERE m.id = u.id OFFSET 0) m
CROSS JOIN LATERAL (SELECT * FROM content c WHERE c.class = m.content_class AND c.id = m.content_id OFFSET 0) c
