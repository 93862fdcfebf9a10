#!/bin/sh
# Starts Postgres as its official image does, as far as the tests need: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB.
set -eu
data=${PGDATA:-/var/lib/postgresql/data}
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
: "${POSTGRES_PASSWORD:?must be set}"

as_postgres() { su postgres -s /bin/sh -c "$1"; }

if [ ! -s "$data/PG_VERSION" ]; then
    mkdir -p "$data" && chown postgres "$data" && chmod 700 "$data"
    printf '%s\n' "$POSTGRES_PASSWORD" > /tmp/password && chown postgres /tmp/password && chmod 600 /tmp/password
    as_postgres "initdb -D $data -U $user -A scram-sha-256 --pwfile /tmp/password --encoding=UTF8 --locale=C --no-sync >/dev/null"
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    if [ "$database" != postgres ]; then
        echo "CREATE DATABASE \"$database\"" | as_postgres "postgres --single -D $data postgres >/dev/null"
    fi
fi
exec su postgres -s /bin/sh -c "exec postgres -D $data -c listen_addresses='*' -c unix_socket_directories=/tmp -c fsync=off -c max_connections=200"
