-- Recipients an account does not send to. Reasons: docs/decisions/0006-suppression.md.
-- id carries when the entry was made. reason: 1 hard_bounce, 2 complaint, 3 unsubscribe, 4 manual; each
-- is an entry of its own. stream NULL: the whole account; an unsubscribe holds back broadcast streams only.
-- expires_at NULL: for good. source_*: the event that made the entry, and the delivery it tells of.
-- No foreign keys: settling writes here, and would lock the account's row for every dead address.
CREATE TABLE suppression (
  id uuid PRIMARY KEY,
  expires_at timestamptz,
  account int4 NOT NULL,
  stream int4,
  reason int2 NOT NULL CHECK (reason BETWEEN 1 AND 4),
  source_rcpt int2,
  source_event uuid,
  source_message uuid,
  address text NOT NULL
);
-- The look-up of every accepted and every fetched delivery. The key is the address in lower case,
-- which means ASCII letters only under "C": mail::suppression::look_up_key says the same.
CREATE UNIQUE INDEX suppression_address
  ON suppression (account, lower(address COLLATE "C"), stream, reason) NULLS NOT DISTINCT;
-- For lists. account + 0, so that no plan of the look-up, made while the table is empty, may take one of
-- these and read all of an account once it is full.
CREATE INDEX suppression_account ON suppression ((account + 0), reason, id);
CREATE INDEX suppression_stream ON suppression ((account + 0), stream, reason, id) WHERE stream IS NOT NULL;
