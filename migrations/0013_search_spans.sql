-- The search index at a third of its price: instead of a row or an entry for each thing that mail is searched by,
-- a row for each such thing in a hundred deliveries. Reasons and figures: docs/decisions/0008-email-search.md.
-- Waits for no lock longer than two seconds: those who list mail, or write to the index, wait with it.
SET LOCAL lock_timeout = '2s';

-- Derived from the event log, so made again from it, with what is new: until the worker has caught up, lists lack
-- the rest. Emptied, the table gets its new index and loses the others at once.
TRUNCATE email_search;
DROP INDEX email_search_recipient, email_search_recipient_domain, email_search_sender, email_search_sender_domain,
           email_search_stream, email_search_status;
-- greatest(x, x) is x, and stands for it where no other condition may be mistaken for it: with the plain id, a plan
-- made on an empty table may look for a delivery's row here, reading all of the index, instead of by its key.
CREATE INDEX email_search_recipient ON email_search (recipient, greatest(message_id, message_id));
-- Delivered (4) is what most mail is: it is found by time.
CREATE INDEX email_search_status ON email_search (((account::int8 << 8) | status), message_id) WHERE status <> 4;

-- Mail with this key lies between first_id and last_id, both of them such mail. Between them lie others as well, and
-- spans of a key may overlap. They are never more than five seconds long (store/src/search_span.rs). Two may end at
-- one message, part of which is in another page; to look for that at each insert would cost as much as the insert.
CREATE TABLE email_span (
  key int8 NOT NULL,
  last_id uuid NOT NULL,
  first_id uuid NOT NULL
) PARTITION BY RANGE (last_id);
CREATE INDEX email_span_key ON email_span (key, last_id);
CREATE TABLE email_span_default PARTITION OF email_span DEFAULT;
SELECT make_day_partition('email_span', day)
FROM (
  SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
  WHERE i.inhparent = 'email_search'::regclass AND c.relname ~ '^email_search_\d{8}$') d;

-- The reader begins at the beginning, whoever it is; what another is writing now is refused.
UPDATE search_lease
SET owner = NULL, expires_at = '-infinity', epoch = epoch + 1, cursor_xid = '0',
    cursor_id = '00000000-0000-0000-0000-000000000000';

-- The version before runs while processes are replaced. It finds no mail by tag meanwhile; and as it cannot write
-- to a view like this, it leaves the index to the new version. A later migration drops it.
DROP TABLE email_tag;
CREATE VIEW email_tag AS SELECT key AS tag, last_id AS message_id FROM email_span WHERE key <> key GROUP BY 1, 2;

CREATE OR REPLACE FUNCTION drop_search_partition(partition text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF partition !~ '^email_(search|span)_\d{8}$' THEN
    RAISE EXCEPTION '% is no day of the search index', partition;
  END IF;
  EXECUTE format('DROP TABLE IF EXISTS %I', partition);
END $$;
