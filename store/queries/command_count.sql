-- How many commands of bulk actions of an account are open, counted up to $2: answered ones are nobody's. To
-- ask for result IS NULL as well would let a plan made on an empty table walk another index. $1 account.
SELECT count(*) FROM (SELECT FROM queue_command c WHERE c.account = $1::int4 LIMIT $2::int8) c
