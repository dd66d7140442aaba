-- What GET /v1/emails finds messages by: made from the event log by the worker, seconds behind it, and
-- never read by anything that sends. Reasons and figures: docs/decisions/0008-email-search.md.

-- One row a delivery. recipient, recipient_domain, sender and sender_domain are hashes that the
-- account is part of, so that each index is one column and the id. sequence: of the event that gave status.
CREATE TABLE email_search (
  message_id uuid NOT NULL,
  recipient int8 NOT NULL,
  recipient_domain int8 NOT NULL,
  sender int8 NOT NULL,
  sender_domain int8 NOT NULL,
  account int4 NOT NULL,
  stream int4 NOT NULL,
  rcpt int2 NOT NULL,
  status int2 NOT NULL,
  sequence int2 NOT NULL,
  test boolean NOT NULL,
  tags int8[],
  PRIMARY KEY (account, message_id, rcpt)
) PARTITION BY RANGE (message_id);
CREATE INDEX email_search_recipient ON email_search (recipient, message_id);
CREATE INDEX email_search_recipient_domain ON email_search (recipient_domain, message_id);
CREATE INDEX email_search_sender ON email_search (sender, message_id);
CREATE INDEX email_search_sender_domain ON email_search (sender_domain, message_id);
CREATE INDEX email_search_stream ON email_search (stream, message_id);
-- Expressions, which no other condition can be mistaken for: with plain (account, status, message_id) a
-- plan made on an empty table may take the primary key and read all mail of the account.
CREATE INDEX email_search_status ON email_search (((account::int8 << 8) | status), message_id);
CREATE INDEX email_search_test ON email_search ((account::int8 << 8), message_id) WHERE test;

-- One row a tag of a message; tag is a hash like those above.
CREATE TABLE email_tag (
  tag int8 NOT NULL,
  message_id uuid NOT NULL,
  PRIMARY KEY (tag, message_id)
) PARTITION BY RANGE (message_id);

-- The one reader of the event log that fills them, and how far it has come: moved by the statement that
-- writes the rows.
CREATE TABLE search_lease (
  number int2 PRIMARY KEY CHECK (number = 0),
  owner uuid,
  epoch int8 NOT NULL DEFAULT 0,
  expires_at timestamptz NOT NULL DEFAULT '-infinity',
  cursor_xid xid8 NOT NULL DEFAULT '0',
  cursor_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000'
) WITH (fillfactor = 50);
INSERT INTO search_lease (number) VALUES (0);

CREATE TABLE email_search_default PARTITION OF email_search DEFAULT;
CREATE TABLE email_tag_default PARTITION OF email_tag DEFAULT;

-- For the mail that is there already.
SELECT make_day_partition(parent, day)
FROM (
  SELECT DISTINCT to_date(substring(c.relname FROM '^message_(\d{8})$'), 'YYYYMMDD') AS day
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
  WHERE i.inhparent = 'message'::regclass AND c.relname ~ '^message_\d{8}$') d,
  unnest(ARRAY['email_search', 'email_tag']) parent;

-- Drops one day of the index. The caller sets a lock_timeout: those who list mail wait behind this.
CREATE FUNCTION drop_search_partition(partition text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF partition !~ '^email_(search|tag)_\d{8}$' THEN
    RAISE EXCEPTION '% is no day of the search index', partition;
  END IF;
  EXECUTE format('DROP TABLE IF EXISTS %I', partition);
END $$;
