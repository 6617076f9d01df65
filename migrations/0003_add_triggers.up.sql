SET LOCAL lock_timeout = '5s';

CREATE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END
$$;

-- Lists are sorted by walking volume_rankings: every volume must have its row there, measured or not.
CREATE FUNCTION rank_volume() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO volume_rankings (volume_id) VALUES (NEW.id);
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION touch_updated_at(), rank_volume() FROM PUBLIC;

CREATE TRIGGER rank_volume AFTER INSERT ON volumes FOR EACH ROW EXECUTE FUNCTION rank_volume();

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['installation', 'nodes', 'volumes', 'volume_latest', 'containers', 'container_volumes', 'scan_runs',
                                'scan_jobs', 'scan_results', 'alerts', 'alert_notifications'] LOOP
        EXECUTE format('CREATE TRIGGER touch_updated_at BEFORE UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION touch_updated_at()', name);
    END LOOP;
END
$$;
