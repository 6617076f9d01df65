-- The tables. Ids are bigint; `volumes.volume_id` is the natural key as text (`node/name`), in every other table `volume_id` means
-- `volumes.id`. Times are the database's own (`clock_timestamp()`).
SET LOCAL lock_timeout = '5s';

DO $$
DECLARE
    missing text;
BEGIN
    SELECT string_agg(format('CREATE ROLE %s NOLOGIN;', name), ' ' ORDER BY name) INTO missing
    FROM unnest(ARRAY['volumeviz_owner', 'volumeviz_controller', 'volumeviz_agent', 'volumeviz_readonly']) AS name
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'group roles are missing; run deploy/bootstrap.sql, or: %', missing USING ERRCODE = 'undefined_object';
    END IF;
END
$$;

-- One row: the cluster whose data this is.
CREATE TABLE installation (
    id bigint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    cluster_uid text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE nodes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz,
    name text COLLATE "C" NOT NULL UNIQUE,
    uid text NOT NULL,
    -- Absent until an agent has looked.
    has_engine boolean,
    engine_id text,
    engine_version text,
    data_root text,
    agent_version text,
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Since when it is not in the cluster, as the controller sees it.
    absent_since timestamptz
);

CREATE TABLE volumes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz,
    -- Compared byte by byte: their order must not change with the server's locale.
    volume_id text COLLATE "C" NOT NULL,
    node text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    driver text NOT NULL DEFAULT 'local',
    mountpoint text NOT NULL DEFAULT '',
    labels jsonb NOT NULL DEFAULT '{}',
    options jsonb NOT NULL DEFAULT '{}',
    scope text NOT NULL DEFAULT 'local',
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'removed')),
    -- Mounted by a running container when last listed.
    is_active boolean NOT NULL DEFAULT false,
    is_anonymous boolean NOT NULL DEFAULT false,
    first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When a running container was last seen to mount it; absent: never since first_seen_at.
    last_used_at timestamptz,
    -- The first of the looks that have found it unused since; absent while a running container mounts it.
    unused_since timestamptz DEFAULT clock_timestamp(),
    -- Who used it last, kept when that container is gone: container, image, compose_project, compose_service, pod (namespace/name).
    origin jsonb NOT NULL DEFAULT '{}',
    last_scanned timestamptz,
    -- Docker's CreatedAt: the directory's ctime, for display only.
    docker_created_at text,
    -- Tell a volume from another that was made later under its name.
    inode bigint,
    birth_time_ns bigint,
    -- The ticket under which it was listed last, and the one whose scan selected it last.
    inventory_ticket uuid,
    selected_ticket uuid
) WITH (fillfactor = 50);

-- What measuring changes, apart from `volumes`, so that no measurement touches an index there.
CREATE TABLE volume_latest (
    volume_id bigint PRIMARY KEY REFERENCES volumes ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    scan_result_id bigint NOT NULL,
    measured_at timestamptz NOT NULL,
    completeness text NOT NULL,
    method text,
    allocated_bytes bigint,
    apparent_bytes bigint,
    files bigint,
    directories bigint,
    complete_measured_at timestamptz,
    complete_method text,
    complete_allocated_bytes bigint,
    complete_apparent_bytes bigint,
    complete_files bigint,
    -- Of the file system it is on, when it was measured last.
    capacity_bytes bigint,
    available_bytes bigint,
    -- Absent below five daily samples; see agent_v1.keep_growth.
    growth_bytes_per_day bigint,
    growth_window_days double precision,
    growth_samples integer
) WITH (fillfactor = 50);

-- What lists of volumes are sorted by. Apart from volume_latest, whose updates stay HOT: a row here is written only when its value changes.
CREATE TABLE volume_rankings (
    volume_id bigint PRIMARY KEY REFERENCES volumes ON DELETE CASCADE,
    -- The last known size: complete, or a lower bound.
    allocated_bytes bigint,
    growth_bytes_per_day bigint
);

CREATE TABLE containers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz,
    container_id text COLLATE "C" NOT NULL,
    node text COLLATE "C" NOT NULL,
    name text NOT NULL,
    image text NOT NULL,
    state text NOT NULL,
    -- Which of Docker's states hold a volume in use; agents select by the same (InventoryContainer::is_running).
    is_running boolean NOT NULL GENERATED ALWAYS AS (state IN ('running', 'paused', 'restarting')) STORED,
    labels jsonb NOT NULL DEFAULT '{}',
    first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    inventory_ticket uuid
);

CREATE TABLE container_volumes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz,
    container_id bigint NOT NULL REFERENCES containers ON DELETE CASCADE,
    volume_id bigint NOT NULL REFERENCES volumes ON DELETE CASCADE,
    mount_path text NOT NULL,
    read_write boolean NOT NULL,
    UNIQUE (container_id, volume_id, mount_path)
);

CREATE TABLE scan_runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    scan_uid text NOT NULL,
    scan_name text NOT NULL,
    -- once, t:TRIGGER, s:DUE TIME; compared byte by byte, so that due times sort.
    run_key text COLLATE "C" NOT NULL,
    -- The snapshot of the spec.
    work jsonb NOT NULL,
    deadline timestamptz NOT NULL,
    completed_at timestamptz,
    result text CHECK (result IN ('Succeeded', 'Partial', 'Failed', 'Cancelled')),
    reason text,
    -- Since when its VolumeScan is not in the cluster, as the controller sees it.
    orphaned_at timestamptz,
    CHECK ((completed_at IS NULL) = (result IS NULL)),
    UNIQUE (scan_uid, run_key)
);

-- One node's part of one run. The ticket is the only authority over it.
CREATE TABLE scan_jobs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz,
    run_id bigint NOT NULL REFERENCES scan_runs ON DELETE CASCADE,
    node text COLLATE "C" NOT NULL,
    node_uid text NOT NULL,
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'running', 'succeeded', 'failed', 'skipped', 'cancelled')),
    ticket uuid NOT NULL DEFAULT gen_random_uuid(),
    attempt integer NOT NULL DEFAULT 1,
    not_before timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The process that claimed the ticket.
    instance uuid,
    claimed_at timestamptz,
    lease_expires_at timestamptz,
    node_deadline timestamptz,
    completed_at timestamptz,
    -- The final chunk of the inventory was accepted under this ticket.
    inventory_ticket uuid,
    progress jsonb NOT NULL DEFAULT '{}',
    reason text,
    message text,
    UNIQUE (run_id, node),
    CHECK ((status = 'running') = (lease_expires_at IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- What one run found of one volume; the first reported outcome is final.
CREATE TABLE scan_results (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz,
    scan_job_id bigint NOT NULL REFERENCES scan_jobs ON DELETE CASCADE,
    volume_id bigint NOT NULL REFERENCES volumes ON DELETE CASCADE,
    measured_at timestamptz NOT NULL,
    completeness text NOT NULL CHECK (completeness IN ('Complete', 'Partial', 'Unknown')),
    reason text,
    method text CHECK (method IN ('Walk', 'Statvfs')),
    allocated_bytes bigint,
    apparent_bytes bigint,
    files bigint,
    directories bigint,
    capacity_bytes bigint,
    available_bytes bigint,
    -- A figure was larger than bigint holds and stands at its maximum.
    saturated boolean NOT NULL DEFAULT false,
    errors jsonb NOT NULL DEFAULT '[]',
    skipped_mounts jsonb NOT NULL DEFAULT '[]',
    -- The biggest, biggest first, as [{"path", "allocated_bytes"}]; absent when they were not asked for.
    top_files jsonb,
    top_directories jsonb,
    duration_ms bigint NOT NULL DEFAULT 0,
    CHECK ((completeness = 'Unknown') = (allocated_bytes IS NULL))
);

-- Sizes over time: a partition a day, made ahead and dropped by `volumeviz maintain`. No foreign keys: a partition is dropped at once.
CREATE SEQUENCE volume_sizes_id_seq AS bigint;
CREATE TABLE volume_sizes (
    id bigint NOT NULL DEFAULT nextval('volume_sizes_id_seq'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz,
    volume_id bigint NOT NULL,
    scan_result_id bigint NOT NULL,
    completeness text NOT NULL,
    method text NOT NULL,
    allocated_bytes bigint NOT NULL,
    apparent_bytes bigint,
    files bigint NOT NULL,
    directories bigint,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
ALTER SEQUENCE volume_sizes_id_seq OWNED BY volume_sizes.id;

-- Their daily extremes, a partition a month; kept longer.
CREATE TABLE volume_sizes_daily (
    volume_id bigint NOT NULL,
    day date NOT NULL,
    method text NOT NULL,
    samples bigint NOT NULL,
    min_allocated_bytes bigint NOT NULL,
    max_allocated_bytes bigint NOT NULL,
    last_allocated_bytes bigint NOT NULL,
    last_apparent_bytes bigint,
    last_files bigint NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (volume_id, day, method)
) PARTITION BY RANGE (day);

-- The state of one subject (a volume, a node, the cluster) under one VolumeAlert, and what became of it.
CREATE TABLE alerts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz,
    alert_uid text NOT NULL,
    alert_name text NOT NULL,
    -- The name of the spec's rule, which tells the unit of value and threshold.
    rule text NOT NULL,
    -- volume: node/name; node: its name; cluster: empty.
    scope text NOT NULL CHECK (scope IN ('Volume', 'Node', 'Cluster')),
    subject text COLLATE "C" NOT NULL,
    volume_id bigint REFERENCES volumes ON DELETE SET NULL,
    state text NOT NULL CHECK (state IN ('Pending', 'Firing', 'Resolved')),
    severity text NOT NULL CHECK (severity IN ('Info', 'Warning', 'Critical')),
    -- The last figure that was judged, and the limit it was held against; no figure: it is open for want of one.
    value double precision,
    threshold double precision NOT NULL,
    message text NOT NULL DEFAULT '',
    fired_at timestamptz,
    -- When its notifications were put down; absent while it is silenced.
    told_at timestamptz,
    resolved_at timestamptz,
    -- Who is told of its end, should the VolumeAlert be gone by then.
    receivers jsonb NOT NULL DEFAULT '[]',
    CHECK ((state = 'Resolved') = (resolved_at IS NOT NULL)),
    CHECK (state <> 'Firing' OR fired_at IS NOT NULL)
);

-- What is to be told, to one receiver each, at least once and under a stable id.
CREATE TABLE alert_notifications (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    notification_id uuid NOT NULL UNIQUE,
    alert_uid text NOT NULL,
    alert_name text NOT NULL,
    -- The receiver as the spec had it, and its name, in whose order notifications are delivered.
    receiver jsonb NOT NULL,
    receiver_name text NOT NULL,
    event text NOT NULL CHECK (event IN ('Firing', 'Reminder', 'Resolved')),
    payload jsonb NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivered_at timestamptz,
    given_up_at timestamptz,
    last_error text
);

-- Figures about the database itself, written by `volumeviz maintain`: a partition a day.
CREATE SEQUENCE system_metrics_id_seq AS bigint;
CREATE TABLE system_metrics (
    id bigint NOT NULL DEFAULT nextval('system_metrics_id_seq'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz,
    name text NOT NULL,
    -- What of, e.g. a table's name; empty for the whole database.
    subject text NOT NULL DEFAULT '',
    value double precision NOT NULL,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
ALTER SEQUENCE system_metrics_id_seq OWNED BY system_metrics.id;

-- Who decided what. Rows are only ever added, in the transaction that they tell about.
CREATE TABLE audit_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The login; not what a client calls itself.
    actor text NOT NULL DEFAULT session_user,
    action text NOT NULL,
    -- volumescan/NAME, run/ID, job/ID, partition/NAME, migration/N, installation
    subject text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}'
);

-- Every change of the schema's version, in the transaction that makes it, as long as there is a table to write it to.
CREATE FUNCTION audit_migration() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO audit_events (action, subject, detail)
        VALUES ('Migrated', 'migration/' || NEW.version, jsonb_build_object('name', NEW.description));
    ELSE
        INSERT INTO audit_events (action, subject, detail)
        VALUES ('MigrationReverted', 'migration/' || OLD.version, jsonb_build_object('name', OLD.description));
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION audit_migration() FROM PUBLIC;
CREATE TRIGGER audit_migration AFTER INSERT OR DELETE ON migrations FOR EACH ROW EXECUTE FUNCTION audit_migration();
