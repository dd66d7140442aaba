# The store's statements with their arguments spelled out for one or a few deliveries.
TODAY=2026-03-10
NOW="$TODAY 12:00:00+00"
A=00000000-0000-0000-0000-00000000000a
B=00000000-0000-0000-0000-00000000000b

uuid_at() { # uuid_at TIMESTAMP NUMBER: a message id of that time
  q "SELECT overlay(uuid_floor('$1')::text placing lpad('$2', 9, '0') || '000' from 25)::uuid"
}
take() { echo "EXECUTE lease_take('$1', '{$2}', ${3:-15}, 0);"; }
renew() { echo "EXECUTE lease_renew('$1', '{$2}', '{$3}', 15);"; }
lapse() { q "UPDATE shard_lease SET expires_at = '-infinity' WHERE shard = $1"; }
poll() { # poll SHARD: message ids from the beginning
  echo "EXECUTE poll('{$1}', '{-infinity}', '{00000000-0000-0000-0000-000000000000}', '{-1}', '$NOW', 100);"
}
intent() { # intent OWNER SHARD EPOCH BATCH MESSAGE ATTEMPT
  echo "EXECUTE intent('$1', '{$2}', '{$3}', '{$2}', ARRAY['$NOW'::timestamptz], '{$5}', '{0}', '{$6}', $4, '$NOW');"
}
settle() { # settle OWNER SHARD EPOCH MESSAGE ATTEMPT TYPE [NEXT [FLAGS]]: TYPE 2 delivered, 7 cancelled
  local next=${7:+"$7"}; local flags=${8:-1}; [ -n "$next" ] && flags=0
  echo "EXECUTE settle('$1', '{$2}', '{$3}', '{$2}', ARRAY['$NOW'::timestamptz], '{$4}', '{0}', '{$5}'," \
       "ARRAY[$([ -n "$next" ] && echo "'$next'" || echo NULL)]::timestamptz[], '{0}', ARRAY[gen_random_uuid()], '{$6}'," \
       "ARRAY[$5 + 2]::int2[], ARRAY[$flags]::int2[], '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', '{NULL}'," \
       "'{NULL}', '{NULL}', ARRAY[$5 + 1]::int2[]);"
}
accept() { # accept "KEYS" "MESSAGES" SHARD ACCEPTED_AT [DUE]: one message of one recipient a key; key - = none
  local keys=($1) messages=($2) shard=$3 at=$4 due=${5:-$4} i
  local ka='' kh='' kr='' m='' one='' sh='' text='' due_list='' expire='' bytes='' two='' zero='' pool=''
  for i in "${!messages[@]}"; do
    if [ "${keys[$i]}" != - ]; then ka+=",1"; kh+=",'${keys[$i]}'::bytea"; kr+=",${messages[$i]}"; fi
    m+=",${messages[$i]}"; one+=",1"; sh+=",$shard"; text+=",x"; zero+=",0"; two+=",1"; pool+=",NULL"
    due_list+=",'$due'::timestamptz"; expire+=",'$due'::timestamptz + interval '5 days'"; bytes+=",'x'::bytea"
  done
  local u="'{${m:1}}'" o="'{${one:1}}'" t="'{${text:1}}'" z="'{${zero:1}}'" b="ARRAY[${bytes:1}]" n="'{${pool:1}}'"
  local kt=${kr:+$(echo "$kr" | sed "s/,[^,]*/,r/g")}
  echo "EXECUTE accept('{${ka:1}}', ARRAY[${kh:1}]::bytea[], ARRAY[${kh:1}]::bytea[], '{${kr:1}}', '{${kt:1}}'," \
       "$u, $u, $u, $o, $o, $o, $o, '{${sh:1}}', $z, $t, $t, $t, $t, $n, $n, $n," \
       "$u, $o, $z, $n, $z, $o, $b, $b," \
       "'{${sh:1}}', ARRAY[${due_list:1}], $u, $z, $o, $o, $o, $n, ARRAY[${expire:1}], $u, '$at', $o, '{${text:1}}', $n, $n);"
}
cancel_direct() { # cancel_direct SHARD MESSAGE DUE THRESHOLD
  echo "EXECUTE cancel_direct('{$1}', ARRAY['$3'::timestamptz], '{$2}', '{0}', ARRAY[gen_random_uuid()], 8, '$4', NULL);"
}
command() { # command ID SHARD MESSAGE DUE: a cancellation is noted
  echo "INSERT INTO queue_command VALUES ('$1', $2, '$3', 0, 0, NULL, NULL, '$4', false, '$NOW');"
}
run() { # run OWNER SHARD EPOCH COMMAND MESSAGE DUE: the owner carries it out
  echo "EXECUTE command_run('$1', '{$2}', '{$3}', '{$4}', '{$2}', '{$5}', '{0}', ARRAY['$6'::timestamptz], '{0}', ARRAY['$NOW'::timestamptz]," \
       "ARRAY[gen_random_uuid()], '{8}', '{NULL}', '$NOW');"
}
answer() { q "SELECT coalesce(result::text, 'open') FROM queue_command WHERE id = '$1'"; }
ids() { grep -oE '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}' | grep -v '^00000000' | sort -u | paste -sd' ' - || true; }
