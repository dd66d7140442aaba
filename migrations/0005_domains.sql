-- Sending domains that prove themselves by DNS: what was found when, when to look again, keys that
-- wait for their record, and domains that were removed while mail of theirs may still be queued.
SET LOCAL lock_timeout = '5s';

-- vouched: the operator said so, no record was asked for and none can be missed.
-- proved: was verified at some time, so mail may refer to it; a domain that never was can just go.
-- check_at NULL: not looked up by itself. misses count scheduled checks in a row without the record.
-- return_path_from: deliveries first due at this time or later return to the domain's own subdomain.
-- findings: JSON of the last check. revision: a decision made from an older row changes nothing.
ALTER TABLE domain
  ADD COLUMN vouched boolean NOT NULL DEFAULT false,
  ADD COLUMN proved boolean NOT NULL DEFAULT false,
  ADD COLUMN failed_at timestamptz,
  ADD COLUMN removed_at timestamptz,
  ADD COLUMN checked_at timestamptz,
  ADD COLUMN check_at timestamptz,
  ADD COLUMN misses int2 NOT NULL DEFAULT 0,
  ADD COLUMN return_path_label text NOT NULL DEFAULT 'pr-bounce',
  ADD COLUMN return_path_from timestamptz,
  ADD COLUMN return_path_misses int2 NOT NULL DEFAULT 0,
  ADD COLUMN findings text,
  ADD COLUMN revision int4 NOT NULL DEFAULT 0;

-- Until now only operators could verify a domain.
UPDATE domain SET vouched = true, proved = true WHERE verified_at IS NOT NULL;

ALTER TABLE domain
  ADD CONSTRAINT domain_one_status CHECK (verified_at IS NULL OR (failed_at IS NULL AND removed_at IS NULL)),
  DROP CONSTRAINT domain_account_name_key;
CREATE UNIQUE INDEX domain_account_name ON domain (account, name) WHERE removed_at IS NULL;
-- Several accounts may register a name, one may prove it.
CREATE UNIQUE INDEX domain_owner ON domain (name) WHERE verified_at IS NOT NULL;
CREATE INDEX domain_check ON domain (check_at) WHERE removed_at IS NULL AND check_at IS NOT NULL;

-- waiting: made by a rotation, signs once its record was found. retired_at: signs no more, its record
-- should stay until mail signed with it has been verified.
ALTER TABLE dkim_key
  ADD COLUMN waiting boolean NOT NULL DEFAULT false,
  ADD COLUMN retired_at timestamptz,
  ADD CONSTRAINT dkim_key_one_standing CHECK (NOT waiting OR retired_at IS NULL);
