#!/bin/sh
# Makes the three logins from the mounted Secrets; psql quotes names and passwords. In a shell of its own: what runs this may source it.
# POSTGRES_USER POSTGRES_DB: as whom and where
(
  set -eu
  for login in owner controller agent; do
    user=$(cat "${LOGINS:-/logins}/$login/username")
    password=$(cat "${LOGINS:-/logins}/$login/password")
    psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
      --set "group=volumeviz_$login" --set "user=$user" --set "password=$password" <<'SQL'
CREATE ROLE :"user" LOGIN PASSWORD :'password' IN ROLE :"group";
ALTER ROLE :"user" SET idle_in_transaction_session_timeout = '10s';
SELECT format('ALTER ROLE %I SET statement_timeout = ''30s''', :'user') WHERE :'group' <> 'volumeviz_owner' \gexec
SQL
  done
)
