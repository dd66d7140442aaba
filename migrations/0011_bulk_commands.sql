-- Commands of bulk actions: whose they are, so that no account has more of them open than others can bear,
-- and what is commanded already. Reasons: docs/decisions/0010-commands.md. A column without a default
-- rewrites nothing, and the table holds an hour's commands at most: its indexes are made at once.
-- account: of an open command of an action; the answer takes it away, so that the index holds what is
-- open and no other index can be taken for it. Those noted before this count for nobody.
ALTER TABLE queue_command ADD COLUMN account int4;

CREATE INDEX queue_command_account ON queue_command (account) WHERE account IS NOT NULL;
CREATE INDEX queue_command_delivery ON queue_command (message_id, rcpt) WHERE result IS NULL;
