# Every statement of the store, planned while the tables are empty and run again when they hold a million
# rows, in the same session: the generic plan of an empty table must still be the right one.
# A plan is judged by what it touches (no sequential scan of a big table) and, run on full tables, by the
# buffers it visits: a number that does not depend on the machine's mood.
open p
batch=200
wide="'$TODAY 00:00:00+00'"
q "TRUNCATE queue, message, content, event, attempt_intent, suppression, email_search, email_span, queue_command; UPDATE search_lease SET owner = '$A', epoch = 0; UPDATE shard_lease SET owner = NULL, expires_at = '-infinity'" >/dev/null
ask p "$(take $A '0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15')" >/dev/null

arguments() { # psql variables for $batch deliveries of several shards, as the store would bind them
  ask p "SELECT array_agg(shard) AS s, array_agg(next_at) AS n, array_agg(message_id) AS m, array_agg(rcpt) AS r,
    array_agg(attempt) AS a, array_agg(gen_random_uuid()) AS g, array_agg(1::int2) AS one, array_agg(9::int2) AS dead, array_agg(NULL::text) AS nil, array_agg(rcpt || '@b.c') AS keys,
    array_agg('x'::text) AS x, array_agg('x'::bytea) AS b, array_agg('2026-03-10 14:00:00+00'::timestamptz) AS later
    FROM (SELECT shard, next_at, message_id, rcpt, attempt FROM queue WHERE shard = 5 LIMIT $batch) s \\gset
  SELECT array_agg(shard) AS ls, array_agg(epoch) AS le FROM shard_lease \\gset
  SELECT array_agg(shard) AS hs, array_agg('-infinity'::timestamptz) AS hn, array_agg('00000000-0000-0000-0000-000000000000'::uuid) AS hm,
    array_agg((-1)::int2) AS hr FROM shard_lease \\gset" >/dev/null
}
nil=00000000-0000-0000-0000-000000000000
most=ffffffff-ffff-ffff-ffff-ffffffffffff
held="'$A', :'ls', :'le'"; keys=":'s', :'n', :'m', :'r', :'a'"
declare -A runs=(
  [accept]="'{}', '{}', '{}', '{}', '{}', :'g', :'g', :'g', :'one', :'one', :'one', :'one', :'s', :'one', :'x', :'x', :'x', :'x', :'nil', :'nil', :'nil', :'g', :'one', :'one', :'nil', :'one', :'one', :'b', :'b', :'s', :'later', :'g', :'one', :'one', :'one', :'one', :'nil', :'later', :'g', '$NOW', :'one', :'keys', :'later', :'nil'"
  [poll]=":'hs', :'hn', :'hm', :'hr', '$NOW', 50"
  [contents]=":'m'"
  [intent]="$held, $keys, 77, '$NOW'"
  [settle]="$held, $keys, :'later', :'one', :'g', :'one', :'one', :'dead', :'one', :'one', :'nil', :'nil', :'nil', :'nil', :'nil', :'nil', :'nil', :'one'"
  [park]="$held, $keys, :'s', :'later'"
  [lease_renew]="$held, 15"
  [lease_take]="'$A', :'ls', 15, 0"
  [lease_release]="'$B', :'ls', :'le'"
  [lease_nodes]="'$A', 'a', 0, 15"
  [intents_open]=":'ls', :'le'"
  [intents_retire]="$held, :'ls', :'le', :'le'"
  [cancel_direct]=":'s', :'n', :'m', :'r', :'g', 8, '-infinity', NULL"
  [command_run]="$held, :'g', :'s', :'m', :'r', :'n', :'r', :'later', :'g', :'one', :'one', '$NOW'"
  [command_scan]="5, '-infinity', '$nil', -1, 20000, :'m', :'r'"
  [command_count]="1, 50000"
  [queued_in]="5, '$nil', ARRAY['$NOW'::timestamptz], ARRAY['-infinity'::timestamptz], ARRAY['infinity'::timestamptz], 5000"
  [sent_among]=":'m', 1"
  [command_match]="5, '-infinity', '$nil', -1, 800, 1, NULL, NULL, NULL, false, NULL, '$nil', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '$NOW', 0, NULL"
  [events_read]="'{0,1,2,3}', '0', '00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000', 500"
  [search_read]="'0', '00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000', '{1,2,3,4,5,6,7,8}', 500"
  [search_messages]=":'m', '$nil', '$most'"
  [search_known]=":'one', :'m', :'r'"
  [search_write]="'$A', 0, '0', '$nil', '1', '$nil', :'one', :'g', :'r', :'one', :'one', :'one', :'one', :'one', :'one', :'one', :'one', :'one', :'one', :'g', :'g', :'one', :'m', :'r', :'one', :'dead'"
  [search_by_time]="1, '$most', '$nil', 101, NULL, NULL, 77, NULL, NULL, NULL, NULL, NULL, NULL"
  [search_by_recipient]="1, '$most', '$nil', 101, hashint8extended(5, 1), NULL, 77, NULL, NULL, NULL, NULL, NULL, NULL"
  [search_by_status]="1, '$most', '$nil', 101, NULL, NULL, 77, NULL, NULL, NULL, 1 << 8 | 2, NULL, NULL"
  [search_by_test]="1, '$most', '$nil', 101, NULL, NULL, 77, NULL, NULL, NULL, NULL, 1 << 8, NULL"
  [search_by_span]="1, '$most', '$nil', 101, NULL, NULL, 77, NULL, NULL, NULL, NULL, NULL, NULL, 1, '$most'"
)
for f in "$root"/store/queries/*.sql; do
  name=$(basename "$f" .sql)
  [ -n "${runs[$name]:-}" ] || { claim "statement $name has a plan in this proof" yes no; }
done
scans='Seq Scan on (queue|queue_command|message|content|event|suppression|email_search|email_span)'
explain() { # explain STATE LIMIT-OF-BUFFERS
  local name plan buffers settings
  for name in "${!runs[@]}"; do
    # As on the connections of searches, which the reader uses too.
    settings=; [[ $name = search_* ]] && settings='SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off;'
    plan=$(ask p "BEGIN; $settings EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) EXECUTE $name(${runs[$name]}); ROLLBACK;")
    claim "$1: $name runs" no "$(grep -qi 'error' <<<"$plan" && echo "$plan" || echo no)"
    claim "$1: $name scans no big table" no "$(grep -qE "$scans" <<<"$plan" && echo "$plan" || echo no)"
    buffers=$(awk '{ line = $0; n = 0
      while (match(line, /(hit|read)=[0-9]+/)) { split(substr(line, RSTART, RLENGTH), part, "="); n += part[2]; line = substr(line, RSTART + RLENGTH) }
      if (n > most) most = n } END { print most + 0 }' <<<"${plan// Buffers:/$'\n'}")
    claim "$1: $name visits few buffers (${buffers:-0})" yes "$([ "${buffers:-0}" -le "$2" ] && echo yes || echo "$plan")"
  done
}
# On empty tables: the keys of deliveries that are not there.
q "INSERT INTO queue SELECT $wide, $wide, $wide, gen_random_uuid(), 1, 1, 1, NULL, 5, 0, 0, 0 FROM generate_series(1, $batch)" >/dev/null
arguments
q "TRUNCATE queue" >/dev/null
for t in message content event queue queue_command suppression email_search email_span; do q "ANALYZE $t"; done >/dev/null
explain 'empty tables' 3000
echo "    loading $rows rows ..."
q "CREATE TABLE proof_ids AS SELECT overlay(uuid_floor($wide::timestamptz + i * interval '30 ms')::text placing lpad(i::text, 9, '0') || '000' from 25)::uuid AS id,
     (i % 16)::int2 AS shard, $wide::timestamptz + i * interval '30 ms' AS at FROM generate_series(1, $rows) i;
   INSERT INTO message SELECT id, id, 1, 1, 1, 1, shard, 0, 's', 'r', 'x', ARRAY['a@b.c'], NULL, NULL, NULL FROM proof_ids;
   INSERT INTO content SELECT id, 1, 0, NULL, 1, 1, 'x', 'x' FROM proof_ids;
   INSERT INTO queue SELECT at, at, at + interval '5 days', id, 1, 1, 1, NULL, shard, 0, 0, 0 FROM proof_ids;
   INSERT INTO event (id, subject, account, type, rcpt, sequence, attempt, flags) SELECT id, id, 1, 1, 0, 1, 0, 0 FROM proof_ids;
   INSERT INTO suppression (id, account, stream, reason, address) SELECT id, 1, NULLIF(shard, 0), 1 + shard % 4, 'User' || row_number() OVER () || '@example.com' FROM proof_ids;
   INSERT INTO email_search SELECT id, hashint8extended(shard, 1), 1, 1, 1, 1, 1, 0, 2, 1, shard % 2 = 1, ARRAY[1] FROM proof_ids;
   INSERT INTO email_span SELECT 1, max(id::text)::uuid, min(id::text)::uuid FROM proof_ids GROUP BY extract(epoch FROM at)::int8 / 4;
   INSERT INTO queue_command (id, shard, message_id, rcpt, kind, bulk, noted_at, account) SELECT gen_random_uuid(), shard, gen_random_uuid(), 0, 0, true, at, 2 FROM proof_ids WHERE at < '$TODAY 00:50:00+00'" >/dev/null
q "INSERT INTO account (public_id, name, created_at) VALUES (gen_random_uuid(), 'plans', '$NOW')" >/dev/null
arguments
explain "$rows rows, plans made on empty tables" 12000
close p; open p
arguments
explain "$rows rows, plans made now" 12000
q "VACUUM ANALYZE queue" >/dev/null; q "VACUUM ANALYZE message" >/dev/null; q "ANALYZE event" >/dev/null; q "ANALYZE suppression" >/dev/null
close p; open p; arguments
explain "$rows rows, after ANALYZE" 12000
close p
