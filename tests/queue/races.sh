# The races of the queue, each driven to its bad moment by hand.
open a; open b; open c

# -- renewal against settlers --------------------------------------------------------------------
m1=$(uuid_at "$NOW" 1); m2=$(uuid_at "$NOW" 2); m3=$(uuid_at "$NOW" 3)
ask a "$(accept '- - -' "$m1 $m2 $m3" 0 "$NOW")" >/dev/null
claim 'a free shard is taken at epoch 1' '0|1' "$(ask a "$(take $A 0)")"
claim 'a shard held by another is not taken' '' "$(ask b "$(take $B 0)")"
ask a "BEGIN;" >/dev/null
claim 'an intent is granted to the owner' '1' "$(ask a "$(intent $A 0 1 1 "$m1" 0)")"
claim 'renewal does not wait for a running intent' '0' "$(ask b "SET lock_timeout = '2s'; $(renew $A 0 1)")"
ask a "ROLLBACK;" >/dev/null
ask a "BEGIN; SELECT FROM shard_lease WHERE shard = 0 FOR SHARE;" >/dev/null
begin_ask b "SET lock_timeout = 0; $(renew $A 0 1)"
claim '(the same with plain FOR SHARE would wait)' yes "$(waits_for_lock b)"
ask a "ROLLBACK;" >/dev/null; end_ask b >/dev/null
for s in a c; do begin_ask $s "DO \$\$ DECLARE i int; BEGIN FOR i IN 1..400 LOOP
  PERFORM FROM shard_lease WHERE shard = 0 AND epoch = 1 FOR KEY SHARE; PERFORM pg_sleep(0.001);
  COMMIT; END LOOP; END \$\$;"; done
renewed=0
while ! answered a || ! answered c; do
  [ "$(ask b "SET lock_timeout = '1s'; $(renew $A 0 1)")" = 0 ] && renewed=$((renewed + 1))
done
claim 'renewal is never starved by a stream of settlers' yes "$([ "$renewed" -ge 5 ] && echo yes || echo "only $renewed")"
end_ask a >/dev/null; end_ask c >/dev/null

# -- take-over against a running settle ------------------------------------------------------------
lapse 0
ask a "BEGIN;" >/dev/null
claim 'a settle under the old epoch runs' '1' "$(ask a "$(settle $A 0 1 "$m1" 0 2)")"
begin_ask b "SET lock_timeout = 0; $(take $B 0)"
claim 'a take-over waits for it' yes "$(waits_for_lock b)"
ask a "COMMIT;" >/dev/null
claim 'then takes the shard at the next epoch' '0|2' "$(end_ask b)"
claim 'and does not see the settled delivery' "$m2 $m3" "$(ask b "$(poll 0)" | ids)"
claim 'the old owner settles nothing any more' '' "$(ask a "$(settle $A 0 1 "$m2" 0 2)")"
claim 'the old owner gets no final dot any more' '' "$(ask a "$(intent $A 0 1 2 "$m2" 0)")"
lapse 0
ask a "BEGIN; $(take $A 0)" >/dev/null
begin_ask b "$(settle $B 0 2 "$m2" 0 2)"
claim 'a settle that meets a running take-over waits' yes "$(waits_for_lock b)"
ask a "COMMIT;" >/dev/null
claim 'and then changes nothing' '' "$(end_ask b)"
claim 'the delivery is still queued' 1 "$(q "SELECT count(*) FROM queue WHERE message_id = '$m2'")"
claim 'a renewal under the old epoch is refused' '' "$(ask b "$(renew $B 0 2)")"
claim 'a node takes its own shard back at once, at a new epoch' '0|4' "$(ask a "$(take $A 0)")"
claim 'a promoted replica cannot bring an old epoch back' '0|100' "$(ask a "EXECUTE lease_take('$A', '{0}', 15, 99);")"

# -- stale re-read ---------------------------------------------------------------------------------
ask c "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1;" >/dev/null
claim 'a delivery is deferred' '1' "$(ask a "$(settle $A 0 100 "$m2" 0 3 "$TODAY 13:00:00+00")")"
claim 'another one is delivered' '1' "$(ask a "$(settle $A 0 100 "$m3" 0 2)")"
claim 'a read that began before still shows both' "$m2 $m3" "$(ask c "$(poll 0)" | ids)"
ask c "COMMIT;" >/dev/null
claim 'but neither gets a second final dot' '' "$(ask a "$(intent $A 0 100 3 "$m2" 0) $(intent $A 0 100 4 "$m3" 0)")"
claim 'a replayed outcome changes nothing' '' "$(ask a "$(settle $A 0 100 "$m2" 0 2) $(settle $A 0 100 "$m3" 0 2)")"
claim 'attempt and sequence went on' '1|2|1' "$(q "SELECT q.attempt, e.sequence, e.attempt FROM queue q JOIN event e ON e.subject = q.message_id AND e.type = 3 WHERE q.message_id = '$m2'")"
claim 'one final event each' "1|1" "$(q "SELECT count(*) FILTER (WHERE subject = '$m1'), count(*) FILTER (WHERE subject = '$m3') FROM event WHERE flags & 1 = 1")"

# -- unsorted idempotency keys -----------------------------------------------------------------------
k1=$(uuid_at "$NOW" 11); k2=$(uuid_at "$NOW" 12); k3=$(uuid_at "$NOW" 13)
ask c "BEGIN; INSERT INTO idempotency VALUES (1, 'k1', 'x', gen_random_uuid(), '$NOW', 'r');" >/dev/null
begin_ask a "$(accept 'k2 k1' "$k1 $k2" 1 "$NOW")"
claim 'a batch waits for a key that another is inserting' yes "$(waits_for_lock a)"
claim 'without holding a key that sorts later, whatever the order it came in' '' "$(ask b "$(accept 'k2' "$k3" 1 "$NOW")")"
ask c "ROLLBACK;" >/dev/null
claim 'then loses that key and only that request' "$k1|1|\\x6b32" "$(end_ask a)"
claim 'the losing request inserted nothing, the others all' "$k2 $k3" "$(q "SELECT id FROM message WHERE shard = 1 ORDER BY id" | paste -sd' ' -)"
for s in a b; do
  { for i in $(seq 60); do
      keys=$(seq -f "h$i-%g" 8); [ $s = b ] && keys=$(echo "$keys" | tac)
      accept "$(echo $keys)" "$(for j in $(seq 8); do printf '%s-7000-8000-%06d%06d ' "$(echo "$k1" | cut -c1-13)" $([ $s = a ] && echo 1 || echo 2)$i "$j"; done)" 1 "$NOW"
    done; } > "$tmp/hammer-$s.sql"
  begin_ask $s "\\i $tmp/hammer-$s.sql"
done
claim 'batches with the same keys in opposite order never deadlock' '0 0' \
  "$(for s in a b; do end_ask $s > "$tmp/hammer.out"; grep -c ERROR "$tmp/hammer.out" || true; done | paste -sd' ' -)"
claim 'and every key was taken once' 480 "$(q "SELECT count(*) FROM message WHERE id IN (SELECT request_id FROM idempotency WHERE encode(key_hash, 'escape') LIKE 'h%')")"

# -- same key across midnight; commit outcome unknown ----------------------------------------------------
before="$TODAY 23:59:59.9+00"; after="$(date -u -d "$TODAY + 1 day" +%F) 00:00:00.1+00"
d1=$(uuid_at "$before" 21); d2=$(uuid_at "$after" 22)
ask a "$(accept night "$d1" 2 "$before")" >/dev/null
claim 'the same key after midnight is the same key' "$d2|1|\\x6e69676874" "$(ask b "$(accept night "$d2" 2 "$after")")"
claim 'and sends nothing twice' 1 "$(q "SELECT count(*) FROM queue WHERE shard = 2")"
claim 'the winner is named for the answer' "$d1" "$(q "SELECT request_id FROM idempotency WHERE key_hash = 'night'")"
u1=$(uuid_at "$NOW" 23)
ask a "$(accept - "$u1" 2 "$NOW")" >/dev/null; ask a "$(accept - "$u1" 2 "$NOW")" >/dev/null
claim 'the same ids a second time (commit unknown) add nothing' '1|1|1' "$(q "SELECT (SELECT count(*) FROM message WHERE id = '$u1'), (SELECT count(*) FROM queue WHERE message_id = '$u1'), (SELECT count(*) FROM event WHERE subject = '$u1')")"

# -- cancel against DATA -----------------------------------------------------------------------------------
c1=$(uuid_at "$NOW" 31); c2=$(uuid_at "$NOW" 32); soon="$TODAY 12:01:00+00"; later="$TODAY 12:10:00+00"
ask a "$(accept - "$c1" 3 "$NOW") $(accept - "$c2" 3 "$NOW" "$later")" >/dev/null
ask a "$(take $A 3)" >/dev/null
claim 'the dot of a due delivery is allowed' '1' "$(ask a "$(intent $A 3 1 1 "$c1" 0)")"
claim 'the API cannot cancel what may be in DATA' '' "$(ask b "$(cancel_direct 3 "$c1" "$NOW" "$soon")")"
claim 'what is due in more than a minute it can' "$c2|0" "$(ask b "$(cancel_direct 3 "$c2" "$later" "$soon")")"
claim 'and that never gets a dot' '' "$(ask a "EXECUTE intent('$A', '{3}', '{1}', '{3}', ARRAY['$later'::timestamptz], '{$c2}', '{0}', '{0}', 2, '$NOW');")"
ask a "BEGIN; $(settle $A 3 1 "$c1" 0 2)" >/dev/null
begin_ask b "$(settle $A 3 1 "$c1" 0 7)"
claim 'cancelled against delivered: the second waits' yes "$(waits_for_lock b)"
ask a "COMMIT;" >/dev/null
claim 'and changes nothing' '' "$(end_ask b)"
claim 'one final event: delivered' 2 "$(q "SELECT type FROM event WHERE subject = '$c1' AND flags & 1 = 1")"

# -- commands against the gate, an outcome, a take-over, and themselves ---------------------------------------
p1=$(uuid_at "$NOW" 34); p2=$(uuid_at "$NOW" 35); p3=$(uuid_at "$NOW" 36); p4=$(uuid_at "$NOW" 37)
ask a "$(accept '- - - -' "$p1 $p2 $p3 $p4" 6 "$NOW") $(take $A 6)" >/dev/null
for p in $p1 $p2 $p3 $p4; do q "$(command "$p" 6 "$p" "$NOW")"; done
ask a "$(intent $A 6 1 1 "$p1" 0)" >/dev/null
claim 'the owner does not cancel what may be in DATA' "$p1|1|" "$(ask a "$(run $A 6 1 "$p1" "$p1" "$NOW")")"
claim 'and says so in the same statement' 1 "$(answer "$p1")"
ask a "BEGIN; $(settle $A 6 1 "$p2" 0 5)" >/dev/null
begin_ask b "$(run $A 6 1 "$p2" "$p2" "$NOW")"
claim 'a command waits for an outcome' yes "$(waits_for_lock b)"
ask a "COMMIT;" >/dev/null
claim 'and answers nothing about a row that went meanwhile' '' "$(end_ask b)"
ask a "BEGIN; $(run $A 6 1 "$p3" "$p3" "$NOW")" >/dev/null
begin_ask b "$(settle $A 6 1 "$p3" 0 5)"
claim 'an outcome waits for a command' yes "$(waits_for_lock b)"
ask a "COMMIT;" >/dev/null
claim 'and changes nothing' '' "$(end_ask b)"
claim 'one final event each' '5 8' "$(q "SELECT type FROM event WHERE subject IN ('$p2', '$p3') AND flags & 1 = 1 ORDER BY type" | paste -sd' ' -)"
claim 'what was carried out is answered' 0 "$(answer "$p3")"
claim 'and has no row for the gate' '' "$(ask a "$(intent $A 6 1 2 "$p3" 0)")"
lapse 6
ask b "$(take $B 6)" >/dev/null
claim 'who lost the shard carries nothing out' '' "$(ask a "$(run $A 6 1 "$p4" "$p4" "$NOW")")"
claim 'and answers nothing' open "$(answer "$p4")"
claim 'its successor does' "$p4|0|0" "$(ask b "$(run $B 6 2 "$p4" "$p4" "$NOW")")"
q "UPDATE queue_command SET result = NULL WHERE id = '$p1'"
claim 'an intent of an older epoch still counts' "$p1|1|" "$(ask b "$(run $B 6 2 "$p1" "$p1" "$NOW")")"
claim 'and nothing is cancelled twice' 1 "$(ask b "$(run $B 6 2 "$p4" "$p4" "$NOW")" >/dev/null; q "SELECT count(*) FROM event WHERE subject = '$p4' AND type = 8")"

# -- take-over with open intents -----------------------------------------------------------------------------
t1=$(uuid_at "$NOW" 41); t2=$(uuid_at "$NOW" 42); t3=$(uuid_at "$NOW" 43)
ask a "$(accept '- - -' "$t1 $t2 $t3" 4 "$NOW") $(take $A 4)" >/dev/null
ask a "$(intent $A 4 1 1 "$t1" 0) $(intent $A 4 1 2 "$t2" 0) $(settle $A 4 1 "$t1" 0 2)" >/dev/null
lapse 4
claim 'the shard is taken over' '4|2' "$(ask b "$(take $B 4)")"
ambiguous=$(ask b "EXECUTE intents_open('{4}', '{2}');" | ids)
claim 'the open intents of the older epoch are listed' "$t1 $t2" "$ambiguous"
queued=$(ask b "$(poll 4)" | ids)
claim 'of these only the one without an outcome is still queued' "$t2 $t3" "$queued"
claim 'the old owner, back from its pause, settles nothing' '' "$(ask a "$(settle $A 4 1 "$t2" 0 2)")"
ask a "INSERT INTO hand_in VALUES (gen_random_uuid(), 4, 1, '$A', '$t2', 0, 0, '{}');" >/dev/null
claim 'so it hands its outcome in, and the new owner settles it' '1' "$(ask b "$(settle $B 4 2 "$t2" 0 2)")"
claim 'exactly one final event' 1 "$(q "SELECT count(*) FROM event WHERE subject = '$t2' AND flags & 1 = 1")"
claim 'a granted intent that was settled is retired' 0 "$(ask b "EXECUTE intents_retire('$B', '{4}', '{2}', '{4}', '{1}', '{3}'); SELECT count(*) FROM attempt_intent WHERE shard = 4;")"

# -- the event log is complete for a reader although writers commit out of order ------------------------------
q "INSERT INTO account (public_id, name, created_at) VALUES (gen_random_uuid(), 'proof', '$NOW');
   INSERT INTO webhook_endpoint (public_id, account, url, types, seal_key, secret, created_at) VALUES (gen_random_uuid(), 1, 'http://x', '{1,2}', 0, '', '$NOW')" >/dev/null
read_log() { ask c "EXECUTE events_read('{1}', '$1', '00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000', 100);" | ids; }
e1=$(uuid_at "$NOW" 51); e2=$(uuid_at "$NOW" 52)
start=$(q "SELECT pg_current_xact_id()")
ask a "BEGIN; $(accept - "$e1" 5 "$NOW")" >/dev/null
ask b "$(accept - "$e2" 5 "$NOW")" >/dev/null
claim 'a later writer that committed first is not read past an open one' '' "$(read_log "$start")"
ask a "COMMIT;" >/dev/null
claim 'then both are read, none is skipped' "$e1 $e2" "$(read_log "$start")"

# -- suppression against accept, fetch and settle ------------------------------------------------------------
s1=$(uuid_at "$NOW" 61); s2=$(uuid_at "$NOW" 62); s3=$(uuid_at "$NOW" 63); s4=$(uuid_at "$NOW" 64); s5=$(uuid_at "$NOW" 65)
suppress="INSERT INTO suppression (id, account, reason, address) VALUES (gen_random_uuid(), 1, 4, 'X')"
held_back() { ask c "EXECUTE contents('{$1}');" | awk -F'|' '{ print $(NF - 1) }'; }
ask a "BEGIN; $suppress;" >/dev/null
claim 'accepting does not wait for a suppression on its way' '' "$(ask b "SET lock_timeout = '2s'; $(accept - "$s1" 6 "$NOW")")"
claim 'and does not see it' '' "$(held_back "$s1")"
ask a "COMMIT;" >/dev/null
claim 'whoever fetches the content afterwards does, whatever the case' '{0}' "$(held_back "$s1")"
claim 'so does who accepts afterwards' "$s2|0|" "$(ask b "$(accept - "$s2" 6 "$NOW")")"
claim 'that ends at once, with a final event and no content' '7|1|1|0|0' "$(q "SELECT e.type, e.flags, e.sequence,
  (SELECT count(*) FROM queue WHERE message_id = '$s2'), (SELECT count(*) FROM content WHERE id = '$s2') FROM event e WHERE subject = '$s2'")"
claim 'and once only' '' "$(ask b "$(accept - "$s2" 6 "$NOW")")"
q "DELETE FROM suppression" >/dev/null
ask a "$(accept '- - -' "$s3 $s4 $s5" 6 "$NOW") $(take $A 6) BEGIN; $(settle $A 6 1 "$s3" 0 5 '' 9)" >/dev/null
begin_ask b "SET lock_timeout = 0; $(settle $A 6 1 "$s4" 0 5 '' 9)"
claim 'two refusals of one dead address: the second waits' yes "$(waits_for_lock b)"
ask a "COMMIT;" >/dev/null
claim 'and is settled all the same' 1 "$(end_ask b)"
claim 'the address is on the list once, for the first' "1|x|$s3" "$(q "SELECT reason, address, source_message FROM suppression")"
q "DELETE FROM suppression; UPDATE message SET flags = 4 WHERE id = '$s5'" >/dev/null
claim 'a test is settled alike' 1 "$(ask a "$(settle $A 6 1 "$s5" 0 5 '' 9)")"
claim 'and proves nothing about the address' 0 "$(q "SELECT count(*) FROM suppression")"
close a; close b; close c
