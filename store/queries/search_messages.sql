-- What new mail is found by, for the index that mail is searched with. Messages that are gone are left out.
-- $1 ids of messages, $2 the lowest and $3 the highest of them (prunes partitions).
SELECT m.id, m.stream, m.flags, m.sender, m.recipients, m.tags
FROM message m
WHERE m.id = ANY ($1::uuid[]) AND m.id >= $2::uuid AND m.id <= $3::uuid
