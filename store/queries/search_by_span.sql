-- Mail that the spans of a key lead to ($14; none of those that begin before $2 ends at $15 or later).
-- $1 account, $2 before this id, $3 from this id on, $4 rows at most, $5..$13 what is looked for; see search_walk.rs.
-- upper: what a span has in common with newer ones is taken off it, so that they come one below the other, each
-- message in one of them. The last of 1,001 only tells that there are more: there the walk ends, wherever it is by
-- then, because all that lies above is in spans that were read.
SELECT w.message_id, w.fits, w.is_end
FROM (
  SELECT w.*, lag(w.message_id) OVER (ORDER BY w.last_id DESC, w.message_id DESC) IS DISTINCT FROM w.message_id AS is_next
  FROM (
    SELECT p.last_id, coalesce(s.message_id, least(p.last_id, p.upper)) AS message_id,
           p.number > 1000 OR row_number() OVER (
             ORDER BY p.last_id DESC, coalesce(s.message_id, least(p.last_id, p.upper)) DESC) = 2000 AS is_end,
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
    FROM (
      SELECT p.last_id, p.first_id, row_number() OVER newer AS number,
             coalesce((min(ARRAY[p.first_id]) OVER newer)[1], $2::uuid) AS upper
      FROM (
        SELECT p.last_id, p.first_id FROM email_span p
        WHERE p.key = $14::int8 AND p.last_id >= $3::uuid AND p.last_id < $15::uuid AND p.first_id < $2
        ORDER BY p.last_id DESC LIMIT 1001) p
      WINDOW newer AS (ORDER BY p.last_id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) p
    LEFT JOIN LATERAL (
      SELECT * FROM email_search s
      WHERE s.account = $1 AND s.message_id >= p.first_id AND s.message_id >= $3
        AND s.message_id <= p.last_id AND s.message_id < p.upper AND p.number <= 1000
      ORDER BY s.message_id DESC OFFSET 0) s ON true
    WHERE p.first_id < p.upper OR p.number > 1000
    ORDER BY p.last_id DESC, coalesce(s.message_id, least(p.last_id, p.upper)) DESC LIMIT 2000) w
  WHERE w.fits OR w.is_end) w
WHERE w.is_next OR w.is_end
ORDER BY w.last_id DESC, w.message_id DESC LIMIT $4::int8
