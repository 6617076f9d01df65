-- What `volumeviz maintain` calls each hour, as the owner: partitions, retention, figures about the database.
SET LOCAL lock_timeout = '5s';

CREATE SCHEMA maintain;
REVOKE ALL ON SCHEMA maintain FROM PUBLIC;

-- Rows and sizes of our tables, partitions summed up under their parent. Rows are the statistics collector's estimate.
CREATE VIEW table_figures AS
SELECT coalesce(whole.relname, part.relname)::text AS name,
    sum(CASE WHEN stat.n_live_tup > 0 THEN stat.n_live_tup ELSE greatest(part.reltuples, 0)::bigint END)::bigint AS estimated_rows,
    sum(stat.n_dead_tup)::bigint AS dead_rows,
    sum(pg_total_relation_size(part.oid))::bigint AS total_bytes,
    sum(pg_indexes_size(part.oid))::bigint AS index_bytes,
    count(pg_inherits.inhparent)::integer AS partitions
FROM pg_class AS part
JOIN pg_stat_user_tables AS stat ON stat.relid = part.oid
LEFT JOIN pg_inherits ON pg_inherits.inhrelid = part.oid
LEFT JOIN pg_class AS whole ON whole.oid = pg_inherits.inhparent
WHERE part.relnamespace = 'public'::regnamespace AND part.relkind = 'r'
GROUP BY 1;

-- The partitioned tables, what a partition covers, and how its name ends.
CREATE FUNCTION maintain.partitioned() RETURNS TABLE (parent text, step interval, suffix text)
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    VALUES ('volume_sizes', interval '1 day', 'YYYYMMDD'),
        ('volume_sizes_daily', interval '1 month', 'YYYYMM'),
        ('system_metrics', interval '1 day', 'YYYYMMDD')
$$;

-- Makes the partitions from yesterday's to that of `days_ahead` days from now, at most `most` of them; returns how many are new. A table is made
-- apart and attached: unlike CREATE TABLE ... PARTITION OF, that waits for no reader and lets nobody wait behind it.
CREATE FUNCTION maintain.make_partitions(days_ahead integer, most integer DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    today CONSTANT timestamp := date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC');
    part record;
    made integer := 0;
BEGIN
    FOR part IN
        SELECT parent, format('%s_%s', parent, to_char(first, suffix)) AS name, first, first + step AS next
        FROM maintain.partitioned(), LATERAL (
            SELECT DISTINCT date_trunc(CASE step WHEN '1 day' THEN 'day' ELSE 'month' END, today + make_interval(days => n)) AS first
            FROM generate_series(-1, days_ahead) AS n
        ) AS firsts
        ORDER BY parent, first
    LOOP
        EXIT WHEN made = most;
        IF to_regclass(format('public.%I', part.name)) IS NULL THEN
            -- Room on the page: the day's row is updated with every measurement.
            EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL) WITH (fillfactor = %s)',
                part.name, part.parent, CASE part.parent WHEN 'volume_sizes_daily' THEN 50 ELSE 100 END);
            EXECUTE format('GRANT SELECT ON public.%I TO volumeviz_controller, volumeviz_readonly', part.name);
            EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                part.parent, part.name, part.first::text || '+00', part.next::text || '+00');
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END
$$;

-- The partitions whose every row is past its retention, by name.
CREATE FUNCTION maintain.expired_partitions(raw_days integer, daily_days integer) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT part.relname::text
    FROM maintain.partitioned() AS kind
    JOIN pg_inherits ON pg_inherits.inhparent = format('public.%I', kind.parent)::regclass
    JOIN pg_class AS part ON part.oid = pg_inherits.inhrelid
    WHERE to_date(right(part.relname, length(kind.suffix)), kind.suffix) + kind.step
        <= (clock_timestamp() AT TIME ZONE 'UTC')::date - CASE kind.parent WHEN 'volume_sizes_daily' THEN daily_days ELSE raw_days END
    ORDER BY part.relname
$$;

-- Drops one partition. The caller bounds the wait for its lock: writers queue behind it.
CREATE FUNCTION maintain.drop_partition(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    parent text;
BEGIN
    SELECT inhparent::regclass::text INTO STRICT parent FROM pg_inherits WHERE inhrelid = format('public.%I', name)::regclass;
    INSERT INTO audit_events (action, subject, detail)
    SELECT 'RetentionDropped', 'partition/' || name, jsonb_build_object('table', parent, 'bytes', pg_total_relation_size(format('public.%I', name)::regclass));
    EXECUTE format('ALTER TABLE public.%I DETACH PARTITION public.%I', parent, name);
    EXECUTE format('DROP TABLE public.%I', name);
END
$$;

-- Nodes that have not been in the cluster for `days` are given up, with their volumes.
CREATE FUNCTION maintain.retire_nodes(days integer) RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    gone text[];
BEGIN
    WITH retired AS (
        UPDATE nodes SET deleted_at = clock_timestamp()
        WHERE deleted_at IS NULL AND absent_since < clock_timestamp() - make_interval(days => days)
        RETURNING name
    )
    SELECT coalesce(array_agg(name ORDER BY name), '{}') INTO gone FROM retired;
    UPDATE volumes SET deleted_at = clock_timestamp(), status = 'removed', is_active = false WHERE node = ANY (gone) AND deleted_at IS NULL;
    UPDATE containers SET deleted_at = clock_timestamp() WHERE node = ANY (gone) AND deleted_at IS NULL;
    INSERT INTO audit_events (action, subject) SELECT 'NodeRetired', 'node/' || name FROM unnest(gone) AS name;
    RETURN cardinality(gone);
END
$$;

-- Deletes what is past its retention from the tables without partitions, at most `batch` rows of each and `run_batch` runs (their dependants
-- come on top); returns how many, so that the caller goes on while there is something.
-- Runs: of each scan its newest ones within `daily_days` stay, as many as its own `runHistoryLimit` says or else `runs_kept`. At any age its
-- newest stays, without which it would run again, and those that hold the last success of a node that was not given up, which its totals are
-- made of; unless the scan itself has been gone for as long.
CREATE FUNCTION maintain.purge(raw_days integer, daily_days integer, runs_kept integer, run_batch integer, batch integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    raw_limit CONSTANT timestamptz := clock_timestamp() - make_interval(days => raw_days);
    daily_limit CONSTANT timestamptz := clock_timestamp() - make_interval(days => daily_days);
    dropped jsonb;
    total bigint;
BEGIN
    WITH ranked AS (
        SELECT id, scan_uid, completed_at, orphaned_at, row_number() OVER newest_first AS place,
            coalesce(first_value((work ->> 'runHistoryLimit')::integer) OVER newest_first, runs_kept) AS kept
        FROM scan_runs WINDOW newest_first AS (PARTITION BY scan_uid ORDER BY id DESC)
    ), run AS (
        DELETE FROM scan_runs WHERE id IN (
            SELECT id FROM ranked WHERE completed_at IS NOT NULL AND (orphaned_at < daily_limit
                OR (place > 1 AND (place > kept OR completed_at < daily_limit) AND NOT EXISTS (
                    SELECT FROM scan_jobs AS success WHERE success.run_id = ranked.id AND success.status = 'succeeded' AND NOT EXISTS (
                        SELECT FROM scan_jobs AS later JOIN scan_runs AS its_run ON its_run.id = later.run_id
                        WHERE later.node = success.node AND later.run_id > success.run_id AND later.status = 'succeeded'
                            AND its_run.scan_uid = ranked.scan_uid)
                        AND EXISTS (SELECT FROM nodes WHERE nodes.name = success.node AND nodes.deleted_at IS NULL))))
            ORDER BY id LIMIT run_batch) RETURNING 1
    ), volume AS (
        DELETE FROM volumes WHERE id IN (SELECT id FROM volumes WHERE deleted_at < daily_limit ORDER BY deleted_at LIMIT batch) RETURNING 1
    ), container AS (
        DELETE FROM containers WHERE id IN (SELECT id FROM containers WHERE deleted_at < raw_limit ORDER BY deleted_at LIMIT batch) RETURNING 1
    ), alert AS (
        -- What was pending and never fired is no history.
        DELETE FROM alerts WHERE id IN (
            SELECT id FROM alerts WHERE resolved_at < CASE WHEN fired_at IS NULL THEN raw_limit ELSE daily_limit END ORDER BY resolved_at LIMIT batch)
        RETURNING 1
    ), notification AS (
        DELETE FROM alert_notifications WHERE id IN (
            SELECT id FROM alert_notifications WHERE created_at < raw_limit ORDER BY created_at LIMIT batch) RETURNING 1
    ), event AS (
        DELETE FROM audit_events WHERE id IN (SELECT id FROM audit_events WHERE created_at < daily_limit ORDER BY created_at LIMIT batch) RETURNING 1
    )
    SELECT jsonb_build_object('scan_runs', (SELECT count(*) FROM run), 'volumes', (SELECT count(*) FROM volume),
        'containers', (SELECT count(*) FROM container), 'alerts', (SELECT count(*) FROM alert),
        'alert_notifications', (SELECT count(*) FROM notification), 'audit_events', (SELECT count(*) FROM event))
    INTO dropped;
    SELECT sum(value::bigint) INTO total FROM jsonb_each_text(dropped);
    IF total > 0 THEN
        INSERT INTO audit_events (action, subject, detail) VALUES ('RetentionDropped', 'rows', dropped);
    END IF;
    RETURN total;
END
$$;

-- Stores the figures of the database as they are now, once an hour whoever asks.
CREATE FUNCTION maintain.record_metrics() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, public, pg_temp AS $$
    INSERT INTO system_metrics (name, subject, value)
    SELECT figure.name, figure.subject, figure.value FROM (
        SELECT 'database_bytes', '', pg_database_size(current_database())
        UNION ALL SELECT 'connections', '', numbackends FROM pg_stat_database WHERE datname = current_database()
        UNION ALL SELECT metric.name, figures.name, metric.value FROM table_figures AS figures CROSS JOIN LATERAL (
            VALUES ('table_bytes', figures.total_bytes), ('table_rows', figures.estimated_rows), ('table_dead_rows', figures.dead_rows)
        ) AS metric (name, value)
    ) AS figure (name, subject, value)
    WHERE NOT EXISTS (
        SELECT FROM system_metrics WHERE name = 'database_bytes' AND subject = '' AND created_at > clock_timestamp() - interval '50 minutes'
    )
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA maintain FROM PUBLIC;
SELECT maintain.make_partitions(14);
