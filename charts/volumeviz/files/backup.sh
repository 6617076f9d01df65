#!/bin/sh
# Dumps the database into /backups, checks the dump, and keeps the newest ones.
# PGHOST PGPORT PGUSER PGDATABASE PGSSLMODE PGSSLROOTCERT: where; PASSWORD_FILE: the password
# KEEP: how many dumps to keep; RESTORE_CHECK: true restores each into a scratch server below /scratch before it counts
# DEADLINE_SECONDS: how long a job may take (activeDeadlineSeconds; six hours when not given)
set -eu
umask 077
backups=${BACKUPS:-/backups} scratch=${SCRATCH:-/scratch}
PGPASSWORD=$(cat "$PASSWORD_FILE"); export PGPASSWORD
dump=$backups/volumeviz-$(date -u +%Y%m%dT%H%M%SZ).dump

stop() {
  [ ! -s "$scratch/data/postmaster.pid" ] || pg_ctl --pgdata "$scratch/data" --mode immediate --silent stop || true
  rm -rf "$scratch/data" "$dump.partial"
}
trap stop EXIT

# What a killed pod left behind: it is older than any job that may still run.
find "$backups" -maxdepth 1 -name 'volumeviz-*.dump.partial' -mmin "+$((${DEADLINE_SECONDS:-21600} / 60))" -print -exec rm -f {} \;

pg_dump --format=custom --role=volumeviz_owner --file="$dump.partial"
# Reads all of it: a dump that was cut short is found here.
pg_restore --file=/dev/null "$dump.partial"

if [ "$RESTORE_CHECK" = true ]; then
  rm -rf "$scratch/data"
  initdb --pgdata "$scratch/data" --username postgres --auth trust --encoding UTF8 --no-sync >/dev/null
  pg_ctl --pgdata "$scratch/data" --wait --silent --log "$scratch/log" \
    -o "-c port=5432 -c listen_addresses='' -c unix_socket_directories=$scratch -c fsync=off" start
  in_scratch() { env -u PGPASSWORD -u PGSSLROOTCERT PGHOST="$scratch" PGPORT=5432 PGUSER=postgres PGSSLMODE=disable "$@"; }
  in_scratch createdb --maintenance-db=postgres restored
  in_scratch psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --dbname restored --file "${SCRIPTS:-/scripts}/bootstrap.sql"
  in_scratch pg_restore --exit-on-error --dbname restored "$dump.partial"
  in_scratch psql --no-psqlrc --tuples-only --no-align --dbname restored --command \
    "SELECT format('restored: schema %s, %s volumes, %s runs, %s results', (SELECT max(version) FROM migrations),
       (SELECT count(*) FROM volumes), (SELECT count(*) FROM scan_runs), (SELECT count(*) FROM scan_results))"
fi

mv "$dump.partial" "$dump"
sync
for old in $(ls -1 "$backups" | grep '^volumeviz-.*\.dump$' | sort -r | tail -n "+$((KEEP + 1))"); do
  rm "$backups/$old"
  echo "deleted $old"
done
echo "kept $dump, $(wc -c < "$dump") bytes"
