-- Partitions are made and dropped by functions of the owner, which `volumeviz maintain` calls each hour.
SET LOCAL lock_timeout = '5s';

CREATE SCHEMA maintain;
REVOKE ALL ON SCHEMA maintain FROM PUBLIC;

-- Makes the day partitions from yesterday to `days_ahead` days from now and the month partitions they fall into; returns how many are new.
CREATE FUNCTION maintain.make_partitions(days_ahead integer) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    today CONSTANT date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    first date;
    made integer := 0;
BEGIN
    FOR first IN SELECT today + n FROM generate_series(-1, days_ahead) AS n LOOP
        IF to_regclass(format('public.volume_sizes_%s', to_char(first, 'YYYYMMDD'))) IS NULL THEN
            EXECUTE format('CREATE TABLE public.%I PARTITION OF public.volume_sizes FOR VALUES FROM (%L) TO (%L)',
                'volume_sizes_' || to_char(first, 'YYYYMMDD'), first || ' 00:00:00+00', first + 1 || ' 00:00:00+00');
            EXECUTE format('GRANT SELECT ON public.%I TO volumeviz_controller, volumeviz_readonly', 'volume_sizes_' || to_char(first, 'YYYYMMDD'));
            made := made + 1;
        END IF;
    END LOOP;
    FOR first IN SELECT DISTINCT date_trunc('month', (today + n)::timestamp)::date FROM generate_series(-1, days_ahead) AS n LOOP
        IF to_regclass(format('public.volume_sizes_daily_%s', to_char(first, 'YYYYMM'))) IS NULL THEN
            EXECUTE format('CREATE TABLE public.%I PARTITION OF public.volume_sizes_daily FOR VALUES FROM (%L) TO (%L)',
                'volume_sizes_daily_' || to_char(first, 'YYYYMM'), first, (first + interval '1 month')::date);
            EXECUTE format('GRANT SELECT ON public.%I TO volumeviz_controller, volumeviz_readonly', 'volume_sizes_daily_' || to_char(first, 'YYYYMM'));
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END
$$;

-- The oldest partition whose every row is past its retention, by its name; NULL when there is none.
CREATE FUNCTION maintain.expired_partition(raw_days integer, daily_days integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT part.relname::text
    FROM pg_inherits
    JOIN pg_class AS part ON part.oid = pg_inherits.inhrelid
    JOIN pg_class AS whole ON whole.oid = pg_inherits.inhparent
    WHERE whole.relnamespace = 'public'::regnamespace AND CASE whole.relname
        WHEN 'volume_sizes' THEN
            to_date(right(part.relname, 8), 'YYYYMMDD') + 1 <= (clock_timestamp() AT TIME ZONE 'UTC')::date - raw_days
        WHEN 'volume_sizes_daily' THEN
            to_date(right(part.relname, 6), 'YYYYMM') + interval '1 month' <= (clock_timestamp() AT TIME ZONE 'UTC')::date - daily_days
        ELSE false
    END
    ORDER BY part.relname LIMIT 1
$$;

-- Drops one partition. The caller bounds the wait for its lock: writers queue behind it.
CREATE FUNCTION maintain.drop_partition(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    whole text;
BEGIN
    SELECT inhparent::regclass::text INTO STRICT whole FROM pg_inherits WHERE inhrelid = format('public.%I', name)::regclass;
    EXECUTE format('ALTER TABLE public.%I DETACH PARTITION public.%I', whole, name);
    EXECUTE format('DROP TABLE public.%I', name);
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA maintain FROM PUBLIC;
SELECT maintain.make_partitions(14);
