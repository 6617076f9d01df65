-- Prepares a PostgreSQL database for VolumeViz: four group roles that hold all rights, and no password.
-- Run it once in the database that VolumeViz shall use, as a superuser or as a role that may create roles and owns the database:
--
--   psql --dbname volumeviz --file bootstrap.sql
--
-- Then make a login of any name a member of each group that something connects as, e.g.:
--
--   CREATE ROLE vv_owner      LOGIN PASSWORD '…' IN ROLE volumeviz_owner;       -- maintain: schema, partitions, retention
--   CREATE ROLE vv_controller LOGIN PASSWORD '…' IN ROLE volumeviz_controller;  -- controller
--   CREATE ROLE vv_agent      LOGIN PASSWORD '…' IN ROLE volumeviz_agent;       -- agents: six functions, no table
--   CREATE ROLE vv_readonly   LOGIN PASSWORD '…' IN ROLE volumeviz_readonly;    -- people, dashboards
--
-- Give the logins bounds of their own, since those of a group are not inherited (the owner waits for migrations as long as they take):
--
--   ALTER ROLE vv_controller SET statement_timeout = '30s';
--   ALTER ROLE vv_controller SET idle_in_transaction_session_timeout = '10s';
--   ALTER ROLE vv_agent      SET statement_timeout = '30s';
--   ALTER ROLE vv_agent      SET idle_in_transaction_session_timeout = '10s';
--
-- Running it again changes nothing.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['volumeviz_owner', 'volumeviz_controller', 'volumeviz_agent', 'volumeviz_readonly'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        END IF;
    END LOOP;
    -- The owner makes everything in schema public, and nobody else makes anything there.
    EXECUTE format('GRANT CONNECT, CREATE ON DATABASE %I TO volumeviz_owner', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO volumeviz_controller, volumeviz_agent, volumeviz_readonly', current_database());
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO volumeviz_owner;
GRANT USAGE ON SCHEMA public TO volumeviz_controller, volumeviz_readonly;
