-- One batch of sends, one statement, one commit. Requests whose idempotency key was taken insert
-- nothing and come back as rows. Arrays are parallel within a group:
-- $1..$6 keys (sorted here: unsorted keys of two batches deadlock), $7..$21 and $44 messages, $22..$29
-- content, $30..$39 deliveries (each gives a queue row and its event). $40 = accepted at, $41 event types,
-- $42 the recipients' look-up keys: one that is suppressed gets its final event (type 7) and no queue row, and what
-- nobody is sent needs no content. Comes back as a row too, without a key. $43 is set where the event tells of a
-- later time.
-- Running the same ids a second time (commit outcome unknown) changes nothing and returns none of these.
WITH k AS (
  INSERT INTO idempotency (account, key_hash, body_hash, request_id, response, created_at)
  SELECT u.account, u.key_hash, u.body_hash, u.request_id, u.response, $40::timestamptz
  FROM unnest($1::int4[], $2::bytea[], $3::bytea[], $4::uuid[], $5::text[])
       AS u (account, key_hash, body_hash, request_id, response)
  ORDER BY u.account, u.key_hash
  ON CONFLICT DO NOTHING
  RETURNING request_id),
lost AS MATERIALIZED (
  SELECT u.request_id, u.account, u.key_hash
  FROM unnest($4::uuid[], $1::int4[], $2::bytea[]) AS u (request_id, account, key_hash)
  WHERE NOT EXISTS (SELECT FROM k WHERE k.request_id = u.request_id)),
m AS (
  INSERT INTO message (id, content_id, account, stream, domain, content_class, shard, flags, sender,
                       rfc_message_id, subject, recipients, tags, metadata, variables, header)
  SELECT u.id, u.content_id, u.account, u.stream, u.domain, u.content_class, u.shard, u.flags, u.sender,
         u.rfc_message_id, u.subject, string_to_array(u.recipients, E'\n'), string_to_array(u.tags, E'\n'),
         u.metadata, u.variables, u.header
  FROM unnest($6::uuid[], $7::uuid[], $8::uuid[], $9::int4[], $10::int4[], $11::int4[], $12::int2[],
              $13::int2[], $14::int2[], $15::text[], $16::text[], $17::text[], $18::text[], $19::text[],
              $20::text[], $21::text[], $44::text[])
       AS u (request_id, id, content_id, account, stream, domain, content_class, shard, flags, sender,
             rfc_message_id, subject, recipients, tags, metadata, variables, header)
  WHERE u.request_id <> ALL (ARRAY(SELECT request_id FROM lost))
  ON CONFLICT DO NOTHING
  RETURNING id, content_id, recipients),
s AS MATERIALIZED (
  SELECT u.message_id, u.rcpt
  FROM unnest($32::uuid[], $33::int2[], $34::int4[], $35::int4[], $42::text[])
       AS u (message_id, rcpt, account, stream, look_up_key)
  CROSS JOIN LATERAL (
    SELECT FROM suppression s
    WHERE s.account = u.account AND lower(s.address COLLATE "C") = u.look_up_key
      AND (s.stream IS NULL OR s.stream = u.stream)
      AND (s.reason <> 3 OR (SELECT t.class FROM stream t WHERE t.id = u.stream) = 1)
      AND (s.expires_at IS NULL OR s.expires_at > $40::timestamptz)
    LIMIT 1) s
  WHERE u.message_id IN (SELECT id FROM m)),
c AS (
  INSERT INTO content (id, class, codec, seal_key, header_octets, octets, body_hash, bytes)
  SELECT u.id, u.class, u.codec, u.seal_key, u.header_octets, u.octets, u.body_hash, u.bytes
  FROM unnest($22::uuid[], $23::int2[], $24::int2[], $25::int4[], $26::int4[], $27::int4[], $28::bytea[],
              $29::bytea[])
       AS u (id, class, codec, seal_key, header_octets, octets, body_hash, bytes)
  WHERE u.id IN (SELECT m.content_id FROM m
                 WHERE cardinality(m.recipients) > (SELECT count(*) FROM s WHERE s.message_id = m.id))
  ON CONFLICT DO NOTHING),
q AS (
  INSERT INTO queue (shard, next_at, message_id, rcpt, account, stream, domain, pool, first_at, expires_at)
  SELECT u.shard, u.next_at, u.message_id, u.rcpt, u.account, u.stream, u.domain, u.pool, u.next_at, u.expires_at
  FROM unnest($30::int2[], $31::timestamptz[], $32::uuid[], $33::int2[], $34::int4[], $35::int4[], $36::int4[],
              $37::int4[], $38::timestamptz[])
       AS u (shard, next_at, message_id, rcpt, account, stream, domain, pool, expires_at)
  WHERE u.message_id IN (SELECT id FROM m)
    AND NOT EXISTS (SELECT FROM s WHERE s.message_id = u.message_id AND s.rcpt = u.rcpt)),
e AS (
  INSERT INTO event (id, subject, account, type, rcpt, sequence, attempt, flags, next_at)
  SELECT u.id, u.message_id, u.account, CASE WHEN s.rcpt IS NULL THEN u.type ELSE 7 END, u.rcpt, 1, 0,
         CASE WHEN s.rcpt IS NULL THEN 0 ELSE 1 END, CASE WHEN s.rcpt IS NULL THEN u.next_at END
  FROM unnest($39::uuid[], $32::uuid[], $34::int4[], $33::int2[], $41::int2[], $43::timestamptz[])
       AS u (id, message_id, account, rcpt, type, next_at)
  LEFT JOIN s ON s.message_id = u.message_id AND s.rcpt = u.rcpt
  WHERE u.message_id IN (SELECT id FROM m))
SELECT request_id, account, key_hash FROM lost
UNION ALL
SELECT message_id, rcpt, NULL FROM s
