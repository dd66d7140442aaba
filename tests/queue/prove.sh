#!/usr/bin/env bash
# Proves the queue's races and plans on a real PostgreSQL, with the very statements the store runs.
#
#   tests/queue/prove.sh              uses PGHOST, PGUSER ... of the environment (needs CREATEDB)
#   PROOF_ROWS=10000 prove.sh races   only the races, or: plans
#
# Makes a database of its own and drops it. Prints one line a claim; exits 1 at the first that is not true.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
rows=${PROOF_ROWS:-1000000}
part=${1:-all}
db=postrider_proof_$$
tmp=$(mktemp -d)
export PGOPTIONS='-c client_min_messages=warning -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off'
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null; [ -n "${PROOF_KEEP:-}" ] || dropdb --if-exists --force "$db" 2>/dev/null; rm -rf "$tmp"' EXIT

source "$root/tests/queue/session.sh"
createdb "$db"
for f in "$root"/migrations/*.sql; do psql -Xq -v ON_ERROR_STOP=1 -d "$db" -f "$f" >/dev/null; done
for f in "$root"/store/queries/*.sql; do
  printf 'PREPARE %s AS\n%s;\n' "$(basename "$f" .sql)" "$(cat "$f")"
done > "$tmp/prepare.sql"

source "$root/tests/queue/statements.sh"
q "SELECT make_day_partition(parent, d::date) FROM generate_series('$TODAY'::date - 1, '$TODAY'::date + 1, interval '1 day') d, unnest(ARRAY['message', 'event', 'content_1', 'content_7', 'content_30', 'email_search', 'email_span']) parent" >/dev/null
if [ "$part" != plans ]; then source "$root/tests/queue/races.sh"; fi
if [ "$part" != races ]; then source "$root/tests/queue/plans.sh"; fi
echo "proved: $claims claims"
