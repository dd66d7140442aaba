#!/bin/sh
# Makes the secrets that docker-compose.yml needs, where they are missing. Never changes one.
# Back up the directory apart from the database: without master.key, stored DKIM keys are lost.
set -eu
umask 022
dir=$(dirname "$0")/secrets
# The containers' users must read the files, which they see one by one: the directory keeps others out.
mkdir -p "$dir" && chmod 700 "$dir"

make() {
    [ -s "$dir/$1" ] && return
    head -c 32 /dev/urandom | base64 | tr -d "$2" >"$dir/$1.new"
    mv "$dir/$1.new" "$dir/$1"
    echo "made $dir/$1"
}

make master.key ''
make return-path.keys ''
make postgres_password '\n/+='
make grafana_password '\n/+='
