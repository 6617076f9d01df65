#!/bin/sh
# Puts a dump of backup.sh in the place of what is in the database, in one transaction. bootstrap.sql must have been run there.
# PGHOST PGPORT PGUSER PGDATABASE PGSSLMODE PGSSLROOTCERT: where; PASSWORD_FILE: the password; DUMP: which (default: the newest)
set -eu
backups=${BACKUPS:-/backups}
PGPASSWORD=$(cat "$PASSWORD_FILE"); export PGPASSWORD
dump=${DUMP:-$(ls -1 "$backups"/volumeviz-*.dump | sort | tail -n 1)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The schema public is there, and its rights are bootstrap.sql's.
pg_restore --list "$dump" | grep -v -E ' (SCHEMA - public|ACL - SCHEMA public|COMMENT - SCHEMA public) ' > "$work/contents"
# pg_restore 17 begins with a setting that older servers do not know.
version=$(psql --no-psqlrc --tuples-only --no-align --command 'SHOW server_version_num') unknown=
[ "$version" -ge 170000 ] || unknown='/^SET transaction_timeout = 0;$/d'
mkfifo "$work/sql"
# A dump that cannot be read to its end must not be committed.
{
  cat <<'SQL'
SET client_min_messages = warning;
SET ROLE volumeviz_owner;
DROP SCHEMA IF EXISTS agent_v1, maintain CASCADE;
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relowner = 'volumeviz_owner'::regrole
    LOOP
        EXECUTE 'DROP TABLE ' || name || ' CASCADE';
    END LOOP;
    FOR name IN SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'v' AND relowner = 'volumeviz_owner'::regrole
    LOOP
        EXECUTE 'DROP VIEW ' || name;
    END LOOP;
    FOR name IN SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proowner = 'volumeviz_owner'::regrole LOOP
        EXECUTE 'DROP FUNCTION ' || name;
    END LOOP;
END
$$;
SQL
  { pg_restore --no-owner --use-list="$work/contents" --file=- "$dump" || echo 'the dump cannot be read to its end;'; } | sed "1,/^COPY /{$unknown}" ||
    echo 'the dump cannot be filtered;'
} > "$work/sql" &
psql --no-psqlrc --quiet --single-transaction --set ON_ERROR_STOP=1 --file "$work/sql" > /dev/null
echo "restored $dump"
