SET LOCAL lock_timeout = '5s';
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT format('%I', part.relname) FROM maintain.partitioned()
        JOIN pg_inherits ON inhparent = format('public.%I', parent)::regclass JOIN pg_class AS part ON part.oid = inhrelid
    LOOP
        EXECUTE format('DROP TABLE public.%s', name);
    END LOOP;
END
$$;
DROP VIEW table_figures;
DROP SCHEMA maintain CASCADE;
