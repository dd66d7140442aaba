-- A page of the log into the index, and the reader's cursor behind it, in one statement: a page is dealt
-- with once, whoever dies and whoever else believes to be the reader. Returns how many cursors moved: none
-- when the lease was lost. A status never goes back to that of an earlier event, and is not written twice.
-- New deliveries take no ON CONFLICT, which would log each of them once more: one that is there already fails
-- the statement, and is given as a change then.
-- $1 owner, $2 epoch, $3 and $4 cursor before, $5 and $6 after, $7..$18 new deliveries, $18 = tags joined by
-- commas, NULL for none; $19..$21 spans, $22..$26 changes of deliveries that are there, or they are left out.
-- Each delivery once. The changes read the row they write, so that no plan can do it but by its key.
WITH moved AS MATERIALIZED (
  UPDATE search_lease SET cursor_xid = $5::text::xid8, cursor_id = $6::uuid
  WHERE number = 0 AND owner = $1::uuid AND epoch = $2::int8 AND cursor_xid = $3::text::xid8 AND cursor_id = $4::uuid
  RETURNING number),
added AS (
  INSERT INTO email_search (account, message_id, rcpt, recipient, recipient_domain, sender, sender_domain, stream,
                            status, sequence, test, tags)
  SELECT u.account, u.message_id, u.rcpt, u.recipient, u.recipient_domain, u.sender, u.sender_domain, u.stream,
         u.status, u.sequence, u.test, string_to_array(u.tags, ',')::int8[]
  FROM unnest($7::int4[], $8::uuid[], $9::int2[], $10::int8[], $11::int8[], $12::int8[], $13::int8[], $14::int4[],
              $15::int2[], $16::int2[], $17::bool[], $18::text[])
       AS u (account, message_id, rcpt, recipient, recipient_domain, sender, sender_domain, stream, status,
             sequence, test, tags)
  WHERE EXISTS (SELECT FROM moved)),
spanned AS (
  INSERT INTO email_span (key, last_id, first_id)
  SELECT u.key, u.last_id, u.first_id FROM unnest($19::int8[], $20::uuid[], $21::uuid[]) AS u (key, last_id, first_id)
  WHERE EXISTS (SELECT FROM moved)),
changed AS (
  INSERT INTO email_search (account, message_id, rcpt, recipient, recipient_domain, sender, sender_domain, stream,
                            status, sequence, test, tags)
  SELECT s.account, s.message_id, s.rcpt, s.recipient, s.recipient_domain, s.sender, s.sender_domain, s.stream,
         u.status, u.sequence, s.test, s.tags
  FROM unnest($22::int4[], $23::uuid[], $24::int2[], $25::int2[], $26::int2[])
       AS u (account, message_id, rcpt, status, sequence)
  CROSS JOIN LATERAL (
    SELECT * FROM email_search s
    WHERE s.account = u.account AND s.message_id = u.message_id AND s.rcpt = u.rcpt OFFSET 0) s
  WHERE EXISTS (SELECT FROM moved)
    AND (u.sequence > s.sequence OR u.sequence = s.sequence AND u.status <> s.status)
  ON CONFLICT (account, message_id, rcpt) DO UPDATE SET status = EXCLUDED.status, sequence = EXCLUDED.sequence)
SELECT count(*) FROM moved
