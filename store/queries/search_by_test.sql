-- Mail of test keys.
-- $1 account, $2 before this id, $3 from this id on, $4 rows at most, $5..$13 what is looked for; see search_walk.rs.
SELECT w.message_id, w.fits, w.is_end
FROM (
  SELECT w.*, lag(w.message_id) OVER (ORDER BY w.message_id DESC) IS DISTINCT FROM w.message_id AS is_next
  FROM (
    SELECT s.message_id, row_number() OVER (ORDER BY s.message_id DESC) = 2000 AS is_end,
           (s.account = $1::int4
               AND ($5::int8 IS NULL OR s.recipient = $5)
               AND ($6::int8 IS NULL OR s.recipient_domain = $6)
               AND ($7::int8 IS NULL OR s.sender = $7)
               AND ($8::int8 IS NULL OR s.sender_domain = $8)
               AND ($9::int8 IS NULL OR s.tags @> ARRAY[$9::int8])
               AND ($10::int4 IS NULL OR s.stream = $10)
               AND ($11::int8 IS NULL OR (s.account::int8 << 8) | s.status = $11)
               AND ($12::int8 IS NULL OR s.test)
               AND ($13::int8[] IS NULL OR s.sender_domain = ANY ($13))) IS TRUE AS fits
    FROM email_search s
    WHERE (s.account::int8 << 8) = $12 AND s.test AND s.message_id < $2::uuid AND s.message_id >= $3::uuid
    ORDER BY s.message_id DESC LIMIT 2000) w
  WHERE w.fits OR w.is_end) w
WHERE w.is_next OR w.is_end
ORDER BY w.message_id DESC LIMIT $4::int8
