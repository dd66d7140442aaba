-- The first schema: accounts and keys, the queue, its content, the event log, webhooks.
-- Reasons: docs/decisions/0001-queue.md. Time never comes from the server here: every timestamp
-- is a parameter, except in the lease statements (store/queries/lease_*.sql).

-- Smallest UUIDv7 of a millisecond: partition bounds and time filters on ids.
CREATE FUNCTION uuid_floor(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
  SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::int8), 12, '0') || '00000000000000000000')::uuid
$$;

CREATE TABLE account (
  id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  public_id uuid NOT NULL UNIQUE,
  name text NOT NULL,
  created_at timestamptz NOT NULL
);

-- class: 0 transactional, 1 broadcast. ambiguous_policy: 0 resend, 1 hold.
CREATE TABLE stream (
  id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  public_id uuid NOT NULL UNIQUE,
  account int4 NOT NULL REFERENCES account,
  name text NOT NULL,
  class int2 NOT NULL CHECK (class IN (0, 1)),
  ambiguous_policy int2 NOT NULL DEFAULT 0 CHECK (ambiguous_policy IN (0, 1)),
  expires_after_secs int4 NOT NULL DEFAULT 432000 CHECK (expires_after_secs > 0),
  UNIQUE (account, name)
);

-- The key itself is never stored: SHA-256 of 256 random bits needs no salt.
CREATE TABLE api_key (
  id uuid PRIMARY KEY,
  account int4 NOT NULL REFERENCES account,
  hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
  hint text NOT NULL,
  test boolean NOT NULL,
  scopes text[] NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz,
  revoked_at timestamptz
);

CREATE TABLE domain (
  id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  public_id uuid NOT NULL UNIQUE,
  account int4 NOT NULL REFERENCES account,
  name text NOT NULL,
  created_at timestamptz NOT NULL,
  verified_at timestamptz,
  UNIQUE (account, name)
);

-- private_key is sealed with the master key numbered seal_key.
CREATE TABLE dkim_key (
  domain int4 NOT NULL REFERENCES domain,
  selector text NOT NULL,
  seal_key int4 NOT NULL,
  private_key bytea NOT NULL,
  public_txt text NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (domain, selector)
);

-- Interned recipient domains: four octets a queue row instead of a name.
CREATE TABLE recipient_domain (
  id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE
);

-- kind: 0 direct to MX, 1 sandbox (every recipient goes to the sandbox MX).
CREATE TABLE pool (
  id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  public_id uuid NOT NULL UNIQUE,
  name text NOT NULL UNIQUE,
  kind int2 NOT NULL CHECK (kind IN (0, 1)),
  queue_group int2 NOT NULL DEFAULT 0
);

-- Addresses mail is sent from, as nodes name them at start. address NULL: the system chooses.
CREATE TABLE source (
  id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  address text,
  ehlo text NOT NULL
);
CREATE UNIQUE INDEX source_name ON source (coalesce(address, ''), ehlo);

-- MTA nodes. id is the stable id of the node's state directory.
CREATE TABLE node (
  id uuid PRIMARY KEY,
  name text NOT NULL,
  queue_group int2 NOT NULL,
  alive_until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- A shard is (queue group, class, number). UNIQUE (shard, epoch) makes a change of epoch a change of
-- key, so that a take-over waits for the FOR KEY SHARE of running settles while a renewal does not.
CREATE TABLE shard_lease (
  shard int2 PRIMARY KEY,
  queue_group int2 NOT NULL,
  class int2 NOT NULL CHECK (class IN (0, 1)),
  number int2 NOT NULL,
  owner uuid,
  epoch int8 NOT NULL DEFAULT 0,
  expires_at timestamptz NOT NULL DEFAULT '-infinity',
  UNIQUE (shard, epoch),
  UNIQUE (queue_group, class, number)
) WITH (fillfactor = 50);

INSERT INTO shard_lease (shard, queue_group, class, number)
SELECT class * 8 + number, 0, class, number
FROM generate_series(0, 1) class, generate_series(0, 7) number;

-- One API send. Insert-only. Exactly two indexes. flags: 1 SMTPUTF8 needed, 2 TLS required, 4 test key.
CREATE TABLE message (
  id uuid NOT NULL,
  content_id uuid NOT NULL,
  account int4 NOT NULL,
  stream int4 NOT NULL,
  domain int4 NOT NULL,
  content_class int2 NOT NULL,
  shard int2 NOT NULL,
  flags int2 NOT NULL,
  sender text NOT NULL,
  rfc_message_id text NOT NULL,
  subject text NOT NULL,
  recipients text[] NOT NULL,
  tags text[],
  metadata text,
  variables text,
  PRIMARY KEY (id)
) PARTITION BY RANGE (id);
-- uuid_send(id) sorts like id. With plain (account, id) the plan of WHERE id = $1, made while a day's
-- partition is empty, may take this index and read all of it once the partition is full.
CREATE INDEX message_account ON message (account, uuid_send(id));

-- What is on the wire, composed once. id carries the time the message is due, so that a day's
-- partition of a retention class holds what ends together. codec: 0 raw, 1 zstd. seal_key: NULL = plain.
CREATE TABLE content (
  id uuid NOT NULL,
  class int2 NOT NULL CHECK (class IN (1, 7, 30)),
  codec int2 NOT NULL,
  seal_key int4,
  header_octets int4 NOT NULL,
  octets int4 NOT NULL,
  body_hash bytea NOT NULL,
  bytes bytea NOT NULL,
  PRIMARY KEY (class, id)
) PARTITION BY LIST (class);
ALTER TABLE content ALTER bytes SET STORAGE EXTERNAL;

CREATE TABLE content_1 PARTITION OF content FOR VALUES IN (1) PARTITION BY RANGE (id);
CREATE TABLE content_7 PARTITION OF content FOR VALUES IN (7) PARTITION BY RANGE (id);
CREATE TABLE content_30 PARTITION OF content FOR VALUES IN (30) PARTITION BY RANGE (id);

-- Unfinished deliveries only; one index. attempt = attempts finished.
-- flags: 1 an earlier attempt is ambiguous, 2 held because of it (goes nowhere until told, or expires).
CREATE TABLE queue (
  next_at timestamptz NOT NULL,
  first_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  message_id uuid NOT NULL,
  account int4 NOT NULL,
  stream int4 NOT NULL,
  domain int4 NOT NULL,
  pool int4,
  shard int2 NOT NULL,
  rcpt int2 NOT NULL,
  attempt int2 NOT NULL DEFAULT 0,
  flags int2 NOT NULL DEFAULT 0,
  PRIMARY KEY (shard, next_at, message_id, rcpt)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000,
        autovacuum_vacuum_cost_delay = 0);

-- "The final dot may be sent": one row a batch and shard. Open until the owner retires the batch.
CREATE TABLE attempt_intent (
  shard int2 NOT NULL,
  epoch int8 NOT NULL,
  batch int8 NOT NULL,
  owner uuid NOT NULL,
  noted_at timestamptz NOT NULL,
  messages uuid[] NOT NULL,
  rcpts int2[] NOT NULL,
  attempts int2[] NOT NULL,
  PRIMARY KEY (shard, epoch, batch)
);

-- Outcomes of a node that lost a shard before it could settle them: the new owner settles.
-- message_id NULL: that node and epoch has nothing more to hand in.
CREATE TABLE hand_in (
  id uuid PRIMARY KEY,
  shard int2 NOT NULL,
  epoch int8 NOT NULL,
  node uuid NOT NULL,
  message_id uuid,
  rcpt int2,
  attempt int2,
  outcome text,
  CHECK ((message_id IS NULL) = (outcome IS NULL))
);
CREATE INDEX hand_in_shard ON hand_in (shard);

-- Wishes about queued mail, carried out by the shard's owner. kind: 0 cancel, 1 retry now, 2 expire,
-- 3 reschedule. result: NULL open, 0 done, 1 too late (already sending or finished).
CREATE TABLE queue_command (
  id uuid PRIMARY KEY,
  shard int2 NOT NULL,
  message_id uuid NOT NULL,
  rcpt int2,
  kind int2 NOT NULL,
  due_at timestamptz,
  result int2
);
CREATE INDEX queue_command_open ON queue_command (shard) WHERE result IS NULL;

-- Append-only. subject = the message, or for events about something else that thing's id.
-- sequence: queued 1, attempt n gives n + 1. flags: 1 final, 2 ambiguous, 4 out of band.
-- xid orders the log for its readers without any clock.
CREATE TABLE event (
  id uuid NOT NULL,
  subject uuid NOT NULL,
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  next_at timestamptz,
  account int4 NOT NULL,
  source int4,
  duration_ms int4,
  type int2 NOT NULL,
  rcpt int2,
  sequence int2 NOT NULL,
  attempt int2 NOT NULL,
  flags int2 NOT NULL,
  class int2,
  code int2,
  enhanced text,
  mx text,
  tls text,
  reply text,
  transcript text
) PARTITION BY RANGE (id);
CREATE INDEX event_subject ON event (subject);
CREATE INDEX event_log ON event (xid, id);

-- Not partitioned by time: the same key a second before and after midnight is the same key.
CREATE TABLE idempotency (
  account int4 NOT NULL,
  key_hash bytea NOT NULL,
  body_hash bytea NOT NULL,
  request_id uuid NOT NULL,
  created_at timestamptz NOT NULL,
  response text NOT NULL,
  PRIMARY KEY (account, key_hash)
);
CREATE INDEX idempotency_age ON idempotency USING brin (created_at);

-- created_xid: an endpoint gets what was committed after it, no clock needed. secret is sealed.
CREATE TABLE webhook_endpoint (
  id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  public_id uuid NOT NULL UNIQUE,
  account int4 NOT NULL REFERENCES account,
  url text NOT NULL,
  types int2[] NOT NULL,
  seal_key int4 NOT NULL,
  secret bytea NOT NULL,
  enabled boolean NOT NULL DEFAULT true,
  created_at timestamptz NOT NULL,
  created_xid xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX webhook_endpoint_account ON webhook_endpoint (account);

-- 16 readers of the event log, by account hash; leased like shards.
CREATE TABLE dispatcher_lease (
  number int2 PRIMARY KEY,
  owner uuid,
  epoch int8 NOT NULL DEFAULT 0,
  expires_at timestamptz NOT NULL DEFAULT '-infinity',
  cursor_xid xid8 NOT NULL DEFAULT '0',
  cursor_id uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
  UNIQUE (number, epoch)
) WITH (fillfactor = 50);
INSERT INTO dispatcher_lease (number) SELECT generate_series(0, 15);

-- Calls that were not answered with 2xx within 5 s, and when to try again.
CREATE TABLE webhook_pending (
  endpoint int4 NOT NULL,
  next_at timestamptz NOT NULL,
  event_id uuid NOT NULL,
  subject uuid NOT NULL,
  attempt int2 NOT NULL,
  PRIMARY KEY (endpoint, next_at, event_id)
);

-- What the sandbox MX received.
CREATE TABLE sandbox_message (
  id uuid PRIMARY KEY,
  received_at timestamptz NOT NULL,
  helo text NOT NULL,
  mail_from text NOT NULL,
  recipients text[] NOT NULL,
  authentication_results text NOT NULL,
  raw bytea NOT NULL
);
ALTER TABLE sandbox_message ALTER raw SET STORAGE EXTERNAL;

-- Makes one table's partition of one UTC day, where it is missing; true when it made it. One a
-- transaction: it waits for one lock at most (of the DEFAULT partition) while it holds none that
-- accepting wants, so it can never be part of a deadlock. Bodies up to 8 KB stay in the row.
CREATE FUNCTION make_day_partition(parent text, day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  lower_id uuid := uuid_floor(day::timestamp AT TIME ZONE 'UTC');
  upper_id uuid := uuid_floor((day + 1)::timestamp AT TIME ZONE 'UTC');
  partition text := parent || '_' || to_char(day, 'YYYYMMDD');
BEGIN
  IF to_regclass(partition) IS NOT NULL THEN
    RETURN false;
  END IF;
  EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', partition, parent);
  IF parent LIKE 'content%' THEN
    EXECUTE format('ALTER TABLE %I SET (toast_tuple_target = 8160)', partition);
  END IF;
  EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                 parent, partition, lower_id, upper_id);
  RETURN true;
END $$;

-- Catch what no partition takes; rows in here raise an alarm.
CREATE TABLE message_default PARTITION OF message DEFAULT;
CREATE TABLE event_default PARTITION OF event DEFAULT;
CREATE TABLE content_1_default PARTITION OF content_1 DEFAULT;
CREATE TABLE content_7_default PARTITION OF content_7 DEFAULT;
CREATE TABLE content_30_default PARTITION OF content_30 DEFAULT;
