#!/bin/sh
# The command of the standby: a copy of the primary $PRIMARY, if there is none yet, and then PostgreSQL, which follows.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # into another folder first: an interrupted copy is begun anew
  rm -rf "$PGDATA.new" && mkdir -p "$PGDATA.new" && chmod 700 "$PGDATA.new"
  until pg_basebackup --pgdata "$PGDATA.new" --wal-method stream --checkpoint fast --write-recovery-conf \
    --dbname "host=$PRIMARY port=${PRIMARY_PORT:-5432} user=replicator"; do
    echo "waiting for $PRIMARY" >&2
    sleep 2
  done
  rm -rf "$PGDATA" && mv "$PGDATA.new" "$PGDATA"
fi
# commits wait for who is called $NAME; the copying above is not to be taken for it
exec postgres -c cluster_name="$NAME" "$@"
