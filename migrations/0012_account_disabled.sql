-- An account can be shut out and let in again: while disabled_at is set its keys are refused, and its mail
-- that was accepted before is delivered. A column without a default rewrites nothing, and the lock is
-- waited for two seconds: on an installation that is too busy for that this fails, changes nothing and
-- can be repeated.
SET LOCAL lock_timeout = '2s';
ALTER TABLE account ADD COLUMN disabled_at timestamptz;
