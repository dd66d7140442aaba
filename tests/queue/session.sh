# Several psql sessions that a script drives step by step, and the words to make claims with.
claims=0
claim() { # claim TEXT WANTED GOT
  if [ "$2" != "$3" ]; then
    printf 'NOT TRUE: %s\n  wanted: %s\n  got:    %s\n' "$1" "$2" "$3" >&2
    exit 1
  fi
  claims=$((claims + 1))
  printf 'ok  %s\n' "$1"
}
q() { psql -XqAt -v ON_ERROR_STOP=1 -d "$db" -c "$1"; }

declare -A inputs
declare -i asked=0
open() { # open NAME: a session with every statement of the store prepared
  rm -f "$tmp/$1.in"; mkfifo "$tmp/$1.in"
  PGAPPNAME=$1 psql -XqAt -d "$db" < "$tmp/$1.in" >> "$tmp/$1.out" 2>&1 &
  exec {fd}> "$tmp/$1.in"
  inputs[$1]=$fd
  ask "$1" "\\i $tmp/prepare.sql" > /dev/null
}
close() { local fd=${inputs[$1]}; exec {fd}>&-; unset "inputs[$1]"; }
begin_ask() { # begin_ask NAME SQL: send it, do not wait
  asked+=1
  mark["$1"]="--done-$asked--"
  : > "$tmp/$1.out"
  printf '%s\n\\echo %s\n' "$2" "${mark[$1]}" >&"${inputs[$1]}"
}
declare -A mark
end_ask() { # end_ask NAME: wait for the answer and print it, lines joined by a space
  local i
  for i in $(seq 1500); do
    if grep -qx -- "${mark[$1]}" "$tmp/$1.out"; then
      sed "/^${mark[$1]}\$/,\$d" "$tmp/$1.out" | paste -sd' ' -
      return
    fi
    sleep 0.02
  done
  echo "no answer from $1 in 30 s: $(cat "$tmp/$1.out")" >&2
  exit 1
}
ask() { begin_ask "$1" "$2"; end_ask "$1"; }
answered() { grep -qx -- "${mark[$1]}" "$tmp/$1.out"; }
waits_for_lock() { # waits_for_lock NAME: yes as soon as the session waits for a lock, no if it answered
  local i
  for i in $(seq 500); do
    if answered "$1"; then echo no; return; fi
    if [ "$(q "SELECT count(*) FROM pg_stat_activity WHERE application_name = '$1' AND wait_event_type = 'Lock'")" = 1 ]; then
      echo yes
      return
    fi
    sleep 0.02
  done
  echo 'neither waiting nor done'
}
