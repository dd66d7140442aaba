-- What an API key is called, what it is restricted to, when it was last used, and the secret it had
-- before its last rotation. Constant defaults only: no row is rewritten.

-- domains, networks: NULL = anywhere. networks are in CIDR notation.
-- previous_hash: accepted until previous_until, while the owner moves to the new secret.
ALTER TABLE api_key
  ADD COLUMN name text NOT NULL DEFAULT '',
  ADD COLUMN domains text[] CHECK (cardinality(domains) > 0),
  ADD COLUMN networks text[] CHECK (cardinality(networks) > 0),
  ADD COLUMN last_used_at timestamptz,
  ADD COLUMN previous_hash bytea CHECK (octet_length(previous_hash) = 32),
  ADD COLUMN previous_until timestamptz,
  ADD CONSTRAINT api_key_previous CHECK ((previous_hash IS NULL) = (previous_until IS NULL));

-- A secret is looked up by either hash.
CREATE UNIQUE INDEX api_key_previous_hash ON api_key (previous_hash) WHERE previous_hash IS NOT NULL;
-- Lists of an account, page by page.
CREATE INDEX api_key_account ON api_key (account, id);
