-- Which deliveries are in the search index: their positions among those given, from 1.
-- $1 accounts, $2 messages, $3 recipient numbers.
SELECT u.position
FROM unnest($1::int4[], $2::uuid[], $3::int2[]) WITH ORDINALITY AS u (account, message_id, rcpt, position)
CROSS JOIN LATERAL (
  SELECT FROM email_search s
  WHERE s.account = u.account AND s.message_id = u.message_id AND s.rcpt = u.rcpt OFFSET 0) s
