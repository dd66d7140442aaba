-- A page of the log into the index, and the reader's cursor behind it, in one statement: a page is dealt
-- with once, whoever dies and whoever else believes to be the reader. Returns how many cursors moved: none
-- when the lease was lost. A status never goes back to that of an earlier event.
-- $1 owner, $2 epoch, $3 and $4 cursor before, $5 and $6 after, $7..$18 rows, each delivery once; $18 = tags
-- joined by commas, NULL for none.
WITH moved AS MATERIALIZED (
  UPDATE search_lease SET cursor_xid = $5::text::xid8, cursor_id = $6::uuid
  WHERE number = 0 AND owner = $1::uuid AND epoch = $2::int8 AND cursor_xid = $3::text::xid8 AND cursor_id = $4::uuid
  RETURNING number),
given AS MATERIALIZED (
  SELECT u.account, u.message_id, u.rcpt, u.recipient, u.recipient_domain, u.sender, u.sender_domain, u.stream,
         u.status, u.sequence, u.test, string_to_array(u.tags, ',')::int8[] AS tags
  FROM unnest($7::int4[], $8::uuid[], $9::int2[], $10::int8[], $11::int8[], $12::int8[], $13::int8[], $14::int4[],
              $15::int2[], $16::int2[], $17::bool[], $18::text[])
       AS u (account, message_id, rcpt, recipient, recipient_domain, sender, sender_domain, stream, status,
             sequence, test, tags)
  WHERE EXISTS (SELECT FROM moved)),
written AS (
  INSERT INTO email_search AS s (account, message_id, rcpt, recipient, recipient_domain, sender, sender_domain,
                                 stream, status, sequence, test, tags)
  SELECT g.account, g.message_id, g.rcpt, g.recipient, g.recipient_domain, g.sender, g.sender_domain, g.stream,
         g.status, g.sequence, g.test, g.tags
  FROM given g
  ORDER BY g.account, g.message_id, g.rcpt
  ON CONFLICT (account, message_id, rcpt) DO UPDATE SET status = EXCLUDED.status, sequence = EXCLUDED.sequence
  WHERE s.sequence <= EXCLUDED.sequence),
tagged AS (
  INSERT INTO email_tag (tag, message_id)
  SELECT DISTINCT t.tag, g.message_id FROM given g CROSS JOIN LATERAL unnest(g.tags) AS t (tag)
  ORDER BY t.tag, g.message_id
  ON CONFLICT DO NOTHING)
SELECT count(*) FROM moved
