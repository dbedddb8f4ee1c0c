#!/bin/sh
# Run once by the image of PostgreSQL, in /docker-entrypoint-initdb.d: who may connect, the database of zim, and which
# standby commits wait for. That comes last, and takes effect with the next start: there is no standby yet.
set -eu

psql --no-psqlrc --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  --set=password="$PGPASSWORD" <<'SQL'
CREATE ROLE zim LOGIN PASSWORD :'password';
CREATE DATABASE zim OWNER zim;
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'password';
ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (db_1, db_2)';
SQL
echo "host replication replicator all scram-sha-256" >> "$PGDATA/pg_hba.conf"
