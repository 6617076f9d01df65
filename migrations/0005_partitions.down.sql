SET LOCAL lock_timeout = '5s';
DROP SCHEMA maintain CASCADE;
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT inhrelid::regclass::text FROM pg_inherits
        WHERE inhparent IN ('public.volume_sizes'::regclass, 'public.volume_sizes_daily'::regclass) AND inhrelid::regclass::text NOT LIKE '%_pkey'
    LOOP
        EXECUTE format('DROP TABLE %s', name);
    END LOOP;
END
$$;
