-- Deliveries of these shards whose final dot was allowed under an older epoch and which may have no
-- outcome. Those settled since are no longer in the queue with that attempt number.
-- $1 shards, $2 the epochs of the new owner.
SELECT i.shard, i.epoch, i.owner, i.noted_at, u.message_id, u.rcpt, u.attempt
FROM unnest($1::int2[], $2::int8[]) AS mine (shard, epoch)
JOIN attempt_intent i ON i.shard = mine.shard AND i.epoch < mine.epoch
CROSS JOIN LATERAL unnest(i.messages, i.rcpts, i.attempts) AS u (message_id, rcpt, attempt)
