-- Webhooks in full: rotation of secrets, switching failing endpoints off, the log of calls, replay.
-- Waits for no lock longer than two seconds, during which those who write events wait with it: on an
-- installation that is too busy for that it fails, changes nothing and can be repeated.
SET LOCAL lock_timeout = '2s';

-- previous_*: the secret before the last rotation, which signs beside the new one until then.
-- failing_since: the first failed call since the last good one. disabled_reason: 1 its owner's wish,
-- 2 it failed for days, 3 it answered 410; rows disabled before this migration have none.
ALTER TABLE webhook_endpoint
  ADD COLUMN previous_seal_key int4,
  ADD COLUMN previous_secret bytea,
  ADD COLUMN previous_until timestamptz,
  ADD COLUMN failing_since timestamptz,
  ADD COLUMN disabled_at timestamptz,
  ADD COLUMN disabled_reason int2;
ALTER TABLE webhook_endpoint
  ADD CONSTRAINT webhook_endpoint_previous CHECK (
    num_nulls(previous_seal_key, previous_secret, previous_until) IN (0, 3)) NOT VALID,
  ADD CONSTRAINT webhook_endpoint_disabled CHECK (
    num_nulls(disabled_at, disabled_reason) IN (0, 2)
    AND (disabled_reason IS NULL OR (NOT enabled AND disabled_reason IN (1, 2, 3)))) NOT VALID;
ALTER TABLE webhook_endpoint VALIDATE CONSTRAINT webhook_endpoint_previous;
ALTER TABLE webhook_endpoint VALIDATE CONSTRAINT webhook_endpoint_disabled;

-- Replays: events of a time that are told to an endpoint once more. from_id and to_id bound the
-- events, cursor is the last message whose events were put among the pending calls (nil: none yet).
-- state: 0 looks for events, 1 has found all of them, 2 finished, 3 cancelled. event_id: of one event.
CREATE TABLE webhook_replay (
  id uuid PRIMARY KEY,
  account int4 NOT NULL,
  endpoint int4 NOT NULL,
  event_id uuid,
  from_id uuid NOT NULL,
  to_id uuid NOT NULL,
  types int2[] NOT NULL,
  created_at timestamptz NOT NULL,
  cursor uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
  events int4 NOT NULL DEFAULT 0,
  is_cut boolean NOT NULL DEFAULT false,
  state int2 NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2, 3)),
  ended_at timestamptz,
  CHECK ((state IN (2, 3)) = (ended_at IS NOT NULL))
);
CREATE INDEX webhook_replay_endpoint ON webhook_replay (endpoint, id);
CREATE INDEX webhook_replay_open ON webhook_replay (id) WHERE state IN (0, 1);
-- One at a time: two would tell everything twice.
CREATE UNIQUE INDEX webhook_replay_one ON webhook_replay (endpoint) WHERE state = 0;

-- replay: the call belongs to it; such calls go after all others of the endpoint.
ALTER TABLE webhook_pending ADD COLUMN replay uuid;
CREATE INDEX webhook_pending_replay ON webhook_pending (replay, next_at) WHERE replay IS NOT NULL;

-- The log of calls, successes too; day partitions by id, which carries the time of the call. result:
-- 0 taken, 1 gone (410), 2 another status, 3 no answer in time, 4 refused by the guard, 5 no connection.
CREATE TABLE webhook_call (
  id uuid NOT NULL,
  event_id uuid NOT NULL,
  subject uuid NOT NULL,
  next_at timestamptz,
  endpoint int4 NOT NULL,
  duration_ms int4 NOT NULL,
  type int2 NOT NULL,
  attempt int2 NOT NULL,
  result int2 NOT NULL CHECK (result BETWEEN 0 AND 5),
  status int2,
  is_replay boolean NOT NULL,
  response text NOT NULL,
  PRIMARY KEY (endpoint, id)
) PARTITION BY RANGE (id);
CREATE INDEX webhook_call_event ON webhook_call (event_id);
CREATE INDEX webhook_call_failed ON webhook_call (endpoint, id) WHERE result <> 0;
CREATE TABLE webhook_call_default PARTITION OF webhook_call DEFAULT;

-- Finds an event by its id alone, at almost no cost for those who write events, because ids come in
-- about the order of time. On the parent only; partitions made from now on have it from the start, and
-- so have the present ones that are small: writers of events wait while these are read.
CREATE INDEX event_by_id ON ONLY event USING brin (id) WITH (pages_per_range = 16, autosummarize = on);
DO $$
DECLARE
  part name;
BEGIN
  FOR part IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'event'::regclass AND pg_relation_size(c.oid) < 64 * 1024 * 1024
  LOOP
    EXECUTE format('CREATE INDEX %I ON %I USING brin (id) WITH (pages_per_range = 16, autosummarize = on)',
                   part || '_by_id', part);
    EXECUTE format('ALTER INDEX event_by_id ATTACH PARTITION %I', part || '_by_id');
  END LOOP;
END $$;
