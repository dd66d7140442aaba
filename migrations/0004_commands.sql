-- Commands to queued mail: where their delivery was seen last, whether many came at once, and since
-- when they are noted. Reasons: docs/decisions/0010-commands.md. Columns with constant defaults
-- rewrite nothing, and the table holds an hour's commands at most: its indexes are made at once.
ALTER TABLE queue_command
  ADD COLUMN seen_at timestamptz,
  ADD COLUMN bulk boolean NOT NULL DEFAULT false,
  ADD COLUMN noted_at timestamptz NOT NULL DEFAULT '-infinity';

DROP INDEX queue_command_open;
CREATE INDEX queue_command_open ON queue_command (shard, bulk, noted_at) WHERE result IS NULL;
CREATE INDEX queue_command_answered ON queue_command (noted_at) WHERE result IS NOT NULL;
