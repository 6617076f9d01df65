-- The agents' contract: six functions, each (ticket uuid, body jsonb) returns jsonb. The bodies are described in src/domain/contract.rs.
-- Fields are only ever added; a changed contract is a schema agent_v2 beside this one.
SET LOCAL lock_timeout = '5s';

CREATE SCHEMA agent_v1;
REVOKE ALL ON SCHEMA agent_v1 FROM PUBLIC;

-- Locks the job of a ticket and renews its lease. NULL: the ticket is not this instance's, and nothing may be written.
-- A lease that has expired is renewed all the same: only a new ticket fences.
CREATE FUNCTION agent_v1.held_job(held uuid, body jsonb) RETURNS scan_jobs
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    job scan_jobs;
BEGIN
    SELECT * INTO job FROM scan_jobs WHERE scan_jobs.ticket = held FOR UPDATE;
    IF NOT FOUND OR job.status <> 'running' OR job.instance IS DISTINCT FROM (body ->> 'instance')::uuid THEN
        RETURN NULL;
    END IF;
    UPDATE scan_jobs SET lease_expires_at = clock_timestamp() + interval '30 seconds', progress = coalesce(body -> 'progress', progress)
    WHERE id = job.id;
    RETURN job;
END
$$;

-- A number as bigint, from 0 to its maximum; NULL stays NULL.
CREATE FUNCTION agent_v1.saturated(number numeric) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN number IS NOT NULL THEN least(greatest(number, 0), 9223372036854775807)::bigint END
$$;

CREATE FUNCTION agent_v1.claim(ticket uuid, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    job scan_jobs;
    run scan_runs;
    claimant uuid := (body ->> 'instance')::uuid;
    fenced CONSTANT jsonb := '{"outcome": "fenced"}';
BEGIN
    SELECT * INTO job FROM scan_jobs WHERE scan_jobs.ticket = claim.ticket FOR UPDATE;
    IF NOT FOUND OR job.node <> body ->> 'node_name' OR job.node_uid <> body ->> 'node_uid' THEN
        RETURN fenced;
    END IF;
    IF job.status <> 'pending' AND NOT (job.status = 'running' AND job.instance = claimant) THEN
        RETURN fenced;
    END IF;
    SELECT * INTO run FROM scan_runs WHERE id = job.run_id;
    IF run.completed_at IS NOT NULL OR run.deadline <= clock_timestamp() THEN
        RETURN fenced;
    END IF;
    UPDATE scan_jobs SET
        status = 'running',
        instance = claimant,
        claimed_at = CASE WHEN job.status = 'pending' THEN clock_timestamp() ELSE claimed_at END,
        lease_expires_at = clock_timestamp() + interval '30 seconds',
        node_deadline = CASE
            WHEN job.status = 'pending' THEN
                least(run.deadline, clock_timestamp() + make_interval(secs => (run.work #>> '{limits,nodeTimeoutSeconds}')::integer))
            ELSE node_deadline
        END
    WHERE id = job.id
    RETURNING * INTO job;
    INSERT INTO nodes (name, uid, agent_version) VALUES (job.node, job.node_uid, body ->> 'agent_version')
    ON CONFLICT (name) DO UPDATE SET
        uid = excluded.uid, agent_version = excluded.agent_version, last_seen_at = clock_timestamp(),
        absent_since = NULL, deleted_at = NULL;
    RETURN jsonb_build_object(
        'outcome', 'claimed',
        'job', job.id,
        'run', job.run_id,
        'attempt', job.attempt,
        'remaining_ms', greatest(0, floor(extract(epoch FROM job.node_deadline - clock_timestamp()) * 1000))::bigint,
        'work', run.work,
        'final_volumes', (
            SELECT coalesce(jsonb_agg(volumes.name ORDER BY volumes.name), '[]')
            FROM scan_results JOIN volumes ON volumes.id = scan_results.volume_id
            WHERE scan_results.scan_job_id = job.id
        )
    );
END
$$;

CREATE FUNCTION agent_v1.heartbeat(ticket uuid, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF (agent_v1.held_job(ticket, body)).id IS NULL THEN
        RETURN '{"outcome": "fenced"}';
    END IF;
    RETURN '{"outcome": "ok"}';
END
$$;

-- Lists the volumes of one chunk.
CREATE FUNCTION agent_v1.list_volumes(job scan_jobs, listed jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    -- Made anew under its name: the old one ends here, with its history.
    UPDATE volumes SET deleted_at = clock_timestamp(), status = 'removed', is_active = false
    FROM jsonb_to_recordset(listed) AS given (name text, inode bigint, birth_time_ns bigint)
    WHERE volumes.volume_id = job.node || '/' || given.name AND volumes.deleted_at IS NULL
        AND (volumes.inode, volumes.birth_time_ns) <> (given.inode, given.birth_time_ns);

    INSERT INTO volumes (volume_id, node, name, driver, mountpoint, labels, options, scope, is_anonymous, docker_created_at, inode,
                         birth_time_ns, inventory_ticket, selected_ticket)
    SELECT DISTINCT ON (given.name)
        job.node || '/' || given.name, job.node, given.name, given.driver, given.mountpoint, given.labels, given.options, given.scope,
        given.kind = 'Anonymous', given.created_at, given.inode, given.birth_time_ns, job.ticket,
        CASE WHEN given.selected THEN job.ticket END
    FROM jsonb_to_recordset(listed) AS given (
        name text, driver text, mountpoint text, labels jsonb, options jsonb, scope text, kind text, selected boolean, created_at text,
        inode bigint, birth_time_ns bigint)
    ORDER BY given.name
    ON CONFLICT (volume_id) WHERE deleted_at IS NULL DO UPDATE SET
        driver = excluded.driver, mountpoint = excluded.mountpoint, labels = excluded.labels, options = excluded.options,
        scope = excluded.scope, is_anonymous = excluded.is_anonymous, docker_created_at = excluded.docker_created_at,
        inode = coalesce(excluded.inode, volumes.inode), birth_time_ns = coalesce(excluded.birth_time_ns, volumes.birth_time_ns),
        last_seen_at = clock_timestamp(), inventory_ticket = excluded.inventory_ticket, selected_ticket = excluded.selected_ticket;
END
$$;

-- Lists the containers of one chunk and the volumes they mount.
CREATE FUNCTION agent_v1.list_containers(job scan_jobs, listed jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO containers (container_id, node, name, image, state, labels, inventory_ticket)
    SELECT DISTINCT ON (given.container_id)
        given.container_id, job.node, given.name, given.image, given.state, given.labels, job.ticket
    FROM jsonb_to_recordset(listed) AS given (container_id text, name text, image text, state text, labels jsonb)
    ORDER BY given.container_id
    ON CONFLICT (container_id, node) WHERE deleted_at IS NULL DO UPDATE SET
        name = excluded.name, image = excluded.image, state = excluded.state, labels = excluded.labels,
        last_seen_at = clock_timestamp(), inventory_ticket = excluded.inventory_ticket;

    INSERT INTO container_volumes (container_id, volume_id, mount_path, read_write)
    SELECT DISTINCT containers.id, volumes.id, mount.destination, mount.read_write
    FROM jsonb_to_recordset(listed) AS given (container_id text, mounts jsonb)
    CROSS JOIN LATERAL jsonb_to_recordset(given.mounts) AS mount (volume text, destination text, read_write boolean)
    JOIN containers ON containers.container_id = given.container_id AND containers.node = job.node AND containers.deleted_at IS NULL
    JOIN volumes ON volumes.volume_id = job.node || '/' || mount.volume AND volumes.deleted_at IS NULL
    ORDER BY containers.id, volumes.id, mount.destination
    ON CONFLICT (container_id, volume_id, mount_path) DO NOTHING;
END
$$;

-- Who uses a volume, kept for the day when the container is gone. A running container tells before a stopped one, a newer before an older.
CREATE FUNCTION agent_v1.keep_origin(job scan_jobs) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE volumes SET origin = found.origin
    FROM (
        SELECT DISTINCT ON (volume.id) volume.id, jsonb_strip_nulls(jsonb_build_object(
            'container', containers.name,
            'image', containers.image,
            'compose_project', coalesce(containers.labels ->> 'com.docker.compose.project', volume.labels ->> 'com.docker.compose.project'),
            'compose_service', containers.labels ->> 'com.docker.compose.service',
            'pod', (containers.labels ->> 'io.kubernetes.pod.namespace') || '/' || (containers.labels ->> 'io.kubernetes.pod.name')
        )) AS origin
        FROM volumes AS volume
        LEFT JOIN (
            containers CROSS JOIN LATERAL (SELECT volume_id FROM container_volumes WHERE container_id = containers.id OFFSET 0) AS mount
        ) ON mount.volume_id = volume.id AND containers.node = job.node AND containers.deleted_at IS NULL
        WHERE volume.node = job.node AND volume.deleted_at IS NULL AND (containers.id IS NOT NULL OR volume.origin = '{}')
        ORDER BY volume.id, containers.is_running DESC, containers.id DESC
    ) AS found
    WHERE volumes.id = found.id AND volumes.node = job.node AND volumes.origin <> found.origin;
END
$$;

-- What an inventory that is complete says about this node: what it did not list is gone; what a running container mounts is in use.
CREATE FUNCTION agent_v1.close_inventory(job scan_jobs) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    UPDATE volumes SET deleted_at = clock_timestamp(), status = 'removed', is_active = false
    WHERE node = job.node AND deleted_at IS NULL AND inventory_ticket IS DISTINCT FROM job.ticket;
    UPDATE containers SET deleted_at = clock_timestamp()
    WHERE node = job.node AND deleted_at IS NULL AND inventory_ticket IS DISTINCT FROM job.ticket;

    -- By this node alone: OFFSET keeps a plan from reading what is on all the others instead.
    WITH used AS (
        SELECT DISTINCT mount.volume_id FROM containers
        CROSS JOIN LATERAL (SELECT volume_id FROM container_volumes WHERE container_id = containers.id OFFSET 0) AS mount
        WHERE containers.node = job.node AND containers.deleted_at IS NULL AND containers.is_running
    )
    UPDATE volumes SET is_active = used.volume_id IS NOT NULL,
        last_used_at = CASE WHEN used.volume_id IS NOT NULL THEN clock_timestamp() ELSE volumes.last_used_at END,
        unused_since = CASE WHEN used.volume_id IS NULL THEN coalesce(volumes.unused_since, clock_timestamp()) END
    FROM volumes AS listed LEFT JOIN used ON used.volume_id = listed.id
    WHERE listed.node = job.node AND listed.deleted_at IS NULL AND (listed.is_active OR used.volume_id IS NOT NULL)
        AND volumes.id = listed.id AND volumes.node = job.node;

    PERFORM agent_v1.keep_origin(job);
    UPDATE scan_jobs SET inventory_ticket = job.ticket WHERE id = job.id;
END
$$;

-- minIntervalSeconds: what any scan measured completely a short time ago counts for this run too; no size is recorded twice. A walk is never
-- answered by what a file system said. Returns the names of all volumes that need no measuring in this run: one that was made anew
-- under its name does.
CREATE FUNCTION agent_v1.reuse_results(job scan_jobs) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    work CONSTANT jsonb := (SELECT scan_runs.work FROM scan_runs WHERE id = job.run_id);
    wanted CONSTANT integer := coalesce((work ->> 'topEntries')::integer, 0);
    since CONSTANT timestamptz := clock_timestamp() - make_interval(secs => coalesce((work #>> '{limits,minIntervalSeconds}')::integer, 0));
BEGIN
    INSERT INTO scan_results (scan_job_id, volume_id, measured_at, completeness, method, allocated_bytes, apparent_bytes, files, directories,
                              capacity_bytes, available_bytes, saturated, errors, skipped_mounts, top_files, top_directories,
                              duration_ms)
    SELECT job.id, earlier.volume_id, earlier.measured_at, earlier.completeness, earlier.method, earlier.allocated_bytes,
        earlier.apparent_bytes, earlier.files, earlier.directories, earlier.capacity_bytes, earlier.available_bytes, earlier.saturated,
        earlier.errors, earlier.skipped_mounts, CASE WHEN wanted > 0 THEN earlier.top_files END,
        CASE WHEN wanted > 0 THEN earlier.top_directories END, earlier.duration_ms
    FROM volumes
    JOIN volume_latest AS latest ON latest.volume_id = volumes.id AND latest.measured_at > since
    JOIN scan_results AS earlier ON earlier.id = latest.scan_result_id AND earlier.completeness = 'Complete'
        AND (work ->> 'mode' = 'Fast' OR (work ->> 'mode' = 'Walk' AND earlier.method = 'Walk'))
        AND (wanted = 0 OR earlier.method = 'Statvfs' OR (jsonb_array_length(earlier.top_files) >= least(wanted, earlier.files)
            AND jsonb_array_length(earlier.top_directories) >= least(wanted, earlier.directories)))
    WHERE volumes.node = job.node AND volumes.deleted_at IS NULL AND volumes.selected_ticket = job.ticket
    ORDER BY earlier.volume_id
    ON CONFLICT (scan_job_id, volume_id) DO NOTHING;
    RETURN (SELECT coalesce(jsonb_agg(volumes.name ORDER BY volumes.name), '[]')
        FROM scan_results JOIN volumes ON volumes.id = scan_results.volume_id AND volumes.deleted_at IS NULL
        WHERE scan_results.scan_job_id = job.id);
END
$$;

CREATE FUNCTION agent_v1.inventory(ticket uuid, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    job scan_jobs := agent_v1.held_job(ticket, body);
    volumes_listed bigint;
    containers_listed bigint;
BEGIN
    IF job.id IS NULL THEN
        RETURN '{"outcome": "fenced"}';
    END IF;
    UPDATE nodes SET has_engine = true, engine_id = body #>> '{engine,id}', engine_version = body #>> '{engine,version}',
        data_root = body #>> '{engine,data_root}', last_seen_at = clock_timestamp()
    WHERE name = job.node;
    PERFORM agent_v1.list_volumes(job, coalesce(body -> 'volumes', '[]'));
    PERFORM agent_v1.list_containers(job, coalesce(body -> 'containers', '[]'));
    IF body -> 'totals' IS NULL OR jsonb_typeof(body -> 'totals') = 'null' THEN
        RETURN '{"outcome": "ok"}';
    END IF;
    SELECT count(*) INTO volumes_listed FROM volumes
    WHERE node = job.node AND deleted_at IS NULL AND inventory_ticket = job.ticket;
    SELECT count(*) INTO containers_listed FROM containers
    WHERE node = job.node AND deleted_at IS NULL AND inventory_ticket = job.ticket;
    IF volumes_listed <> (body #>> '{totals,volumes}')::bigint OR containers_listed <> (body #>> '{totals,containers}')::bigint THEN
        RETURN jsonb_build_object('outcome', 'incomplete', 'detail', format(
            'the agent listed %s volumes and %s containers, the database holds %s and %s',
            body #>> '{totals,volumes}', body #>> '{totals,containers}', volumes_listed, containers_listed));
    END IF;
    PERFORM agent_v1.close_inventory(job);
    RETURN jsonb_build_object('outcome', 'ok', 'final_volumes', agent_v1.reuse_results(job));
END
$$;

-- The biggest files or directories in the one shape that is read again, however they were sent; NULL stays NULL.
CREATE FUNCTION agent_v1.biggest(entries jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_typeof(entries) <> 'null' THEN (
        SELECT coalesce(jsonb_agg(jsonb_build_object('path', path, 'allocated_bytes', allocated_bytes) ORDER BY allocated_bytes DESC, path), '[]')
        FROM (
            SELECT right(coalesce(entry.path, ''), 1024) AS path, agent_v1.saturated(coalesce(entry.allocated_bytes, 0)) AS allocated_bytes
            FROM jsonb_to_recordset(entries) AS entry (path text, allocated_bytes numeric) ORDER BY 2 DESC, 1 LIMIT 20
        ) AS biggest
    ) END
$$;

-- History of results just stored. It may be missing (no partition for that day: maintain was away for two weeks, or the result is older than
-- what is kept); the results themselves stay.
CREATE FUNCTION agent_v1.keep_sizes(fresh bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO volume_sizes (created_at, volume_id, scan_result_id, completeness, method, allocated_bytes, apparent_bytes, files, directories)
    SELECT measured_at, volume_id, id, completeness, method, allocated_bytes, apparent_bytes, files, directories
    FROM scan_results WHERE id = ANY (fresh) AND completeness <> 'Unknown' ORDER BY volume_id;
EXCEPTION WHEN check_violation THEN
    -- One that fits nowhere must not take the others with it.
    IF cardinality(fresh) > 1 THEN
        PERFORM agent_v1.keep_sizes(ARRAY[one]) FROM unnest(fresh) AS one;
    ELSE
        RAISE WARNING 'no partition of volume_sizes for result %: its size is not kept; is volumeviz maintain running?', fresh[1];
    END IF;
END
$$;

CREATE FUNCTION agent_v1.keep_daily_sizes(fresh bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO volume_sizes_daily AS daily (volume_id, day, method, samples, min_allocated_bytes, max_allocated_bytes, last_allocated_bytes,
                                             last_apparent_bytes, last_files, last_at)
    SELECT volume_id, (measured_at AT TIME ZONE 'UTC')::date, method, 1, allocated_bytes, allocated_bytes, allocated_bytes, apparent_bytes,
        files, measured_at
    FROM scan_results WHERE id = ANY (fresh) AND completeness = 'Complete' ORDER BY volume_id
    ON CONFLICT (volume_id, day, method) DO UPDATE SET
        samples = daily.samples + 1,
        min_allocated_bytes = least(daily.min_allocated_bytes, excluded.min_allocated_bytes),
        max_allocated_bytes = greatest(daily.max_allocated_bytes, excluded.max_allocated_bytes),
        -- One that was measured earlier and arrives later is a sample, not the last.
        last_allocated_bytes = CASE WHEN excluded.last_at >= daily.last_at THEN excluded.last_allocated_bytes ELSE daily.last_allocated_bytes END,
        last_apparent_bytes = CASE WHEN excluded.last_at >= daily.last_at THEN excluded.last_apparent_bytes ELSE daily.last_apparent_bytes END,
        last_files = CASE WHEN excluded.last_at >= daily.last_at THEN excluded.last_files ELSE daily.last_files END,
        last_at = greatest(excluded.last_at, daily.last_at);
EXCEPTION WHEN check_violation THEN
    IF cardinality(fresh) > 1 THEN
        PERFORM agent_v1.keep_daily_sizes(ARRAY[one]) FROM unnest(fresh) AS one;
    ELSE
        RAISE WARNING 'no partition of volume_sizes_daily for result %: its size is not kept; is volumeviz maintain running?', fresh[1];
    END IF;
END
$$;

-- Growth in bytes a day of the volumes of these results: the Theil-Sen estimator (Sen 1968), the median of the slopes between every two of
-- the last samples of up to 14 days, complete ones of the method measured last. With five samples, four of ten slopes touch any one of them:
-- a single outlier cannot carry the median away. Below five there is no growth.
CREATE FUNCTION agent_v1.growth(fresh bigint[]) RETURNS TABLE (volume_id bigint, bytes_per_day bigint, window_days double precision, samples integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    today CONSTANT date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
BEGIN
    RETURN QUERY
    WITH measured AS (
        SELECT DISTINCT volume_id, method FROM scan_results WHERE id = ANY (fresh) AND completeness = 'Complete'
    ), sample AS (
        SELECT daily.volume_id, daily.last_at, daily.last_allocated_bytes::float8 AS bytes
        FROM measured JOIN volume_sizes_daily AS daily USING (volume_id, method) WHERE daily.day BETWEEN today - 13 AND today
    ), span AS (
        SELECT volume_id, count(*)::integer AS samples, extract(epoch FROM max(last_at) - min(last_at))::float8 / 86400 AS days
        FROM sample GROUP BY volume_id HAVING count(*) >= 5
    )
    SELECT span.volume_id, least(greatest(round(
            percentile_cont(0.5) WITHIN GROUP (ORDER BY (later.bytes - earlier.bytes) * 86400 / extract(epoch FROM later.last_at - earlier.last_at)::float8)
        ), -9.2e18), 9.2e18)::bigint, span.days, span.samples
    FROM span JOIN sample AS earlier USING (volume_id) JOIN sample AS later USING (volume_id)
    WHERE later.last_at > earlier.last_at
    GROUP BY span.volume_id, span.days, span.samples;
END
$$;

-- The last outcome of each volume of these results, and the last complete one: by when they were measured, not by when they arrived.
CREATE FUNCTION agent_v1.keep_latest(fresh bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO volume_latest AS latest (volume_id, scan_result_id, measured_at, completeness, method, allocated_bytes, apparent_bytes, files,
                                         directories, complete_measured_at, complete_method, complete_allocated_bytes,
                                         complete_apparent_bytes, complete_files, capacity_bytes, available_bytes,
                                         growth_bytes_per_day, growth_window_days, growth_samples)
    SELECT result.volume_id, id, measured_at, completeness, method, allocated_bytes, apparent_bytes, files, directories,
        CASE completeness WHEN 'Complete' THEN measured_at END, CASE completeness WHEN 'Complete' THEN method END,
        CASE completeness WHEN 'Complete' THEN allocated_bytes END, CASE completeness WHEN 'Complete' THEN apparent_bytes END,
        CASE completeness WHEN 'Complete' THEN files END, capacity_bytes, available_bytes, growth.bytes_per_day, growth.window_days,
        growth.samples
    FROM scan_results AS result LEFT JOIN agent_v1.growth(fresh) AS growth ON growth.volume_id = result.volume_id
    WHERE id = ANY (fresh) ORDER BY result.volume_id
    ON CONFLICT (volume_id) DO UPDATE SET
        scan_result_id = excluded.scan_result_id, measured_at = excluded.measured_at, completeness = excluded.completeness,
        method = excluded.method, allocated_bytes = excluded.allocated_bytes, apparent_bytes = excluded.apparent_bytes,
        files = excluded.files, directories = excluded.directories,
        complete_measured_at = coalesce(excluded.complete_measured_at, latest.complete_measured_at),
        complete_method = coalesce(excluded.complete_method, latest.complete_method),
        complete_allocated_bytes = coalesce(excluded.complete_allocated_bytes, latest.complete_allocated_bytes),
        complete_apparent_bytes = coalesce(excluded.complete_apparent_bytes, latest.complete_apparent_bytes),
        complete_files = coalesce(excluded.complete_files, latest.complete_files),
        capacity_bytes = coalesce(excluded.capacity_bytes, latest.capacity_bytes),
        available_bytes = coalesce(excluded.available_bytes, latest.available_bytes),
        -- What is not complete says nothing of growth, for or against.
        growth_bytes_per_day = CASE excluded.completeness WHEN 'Complete' THEN excluded.growth_bytes_per_day ELSE latest.growth_bytes_per_day END,
        growth_window_days = CASE excluded.completeness WHEN 'Complete' THEN excluded.growth_window_days ELSE latest.growth_window_days END,
        growth_samples = CASE excluded.completeness WHEN 'Complete' THEN excluded.growth_samples ELSE latest.growth_samples END
    WHERE excluded.measured_at >= latest.measured_at;

    -- A complete one that arrives after a later outcome that is not complete.
    UPDATE volume_latest AS latest SET
        complete_measured_at = result.measured_at, complete_method = result.method, complete_allocated_bytes = result.allocated_bytes,
        complete_apparent_bytes = result.apparent_bytes, complete_files = result.files, growth_bytes_per_day = growth.bytes_per_day,
        growth_window_days = growth.window_days, growth_samples = growth.samples
    FROM scan_results AS result LEFT JOIN agent_v1.growth(fresh) AS growth ON growth.volume_id = result.volume_id
    WHERE result.id = ANY (fresh) AND result.completeness = 'Complete' AND latest.volume_id = result.volume_id
        AND result.measured_at < latest.measured_at AND result.measured_at > coalesce(latest.complete_measured_at, '-infinity');
END
$$;

-- What lists are sorted by, where it has changed.
CREATE FUNCTION agent_v1.keep_rankings(fresh bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    -- Every volume has its row: this always updates, by the key, however many rows there are.
    INSERT INTO volume_rankings AS ranking (volume_id, allocated_bytes, growth_bytes_per_day)
    SELECT latest.volume_id, latest.allocated_bytes, latest.growth_bytes_per_day
    FROM scan_results AS result JOIN volume_latest AS latest ON latest.volume_id = result.volume_id
    WHERE result.id = ANY (fresh) ORDER BY latest.volume_id
    ON CONFLICT (volume_id) DO UPDATE SET
        allocated_bytes = coalesce(excluded.allocated_bytes, ranking.allocated_bytes), growth_bytes_per_day = excluded.growth_bytes_per_day
    WHERE (ranking.allocated_bytes, ranking.growth_bytes_per_day)
        IS DISTINCT FROM (coalesce(excluded.allocated_bytes, ranking.allocated_bytes), excluded.growth_bytes_per_day);
END
$$;

CREATE FUNCTION agent_v1.report(ticket uuid, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    job scan_jobs := agent_v1.held_job(ticket, body);
    fresh bigint[];
BEGIN
    IF job.id IS NULL THEN
        RETURN '{"outcome": "fenced"}';
    END IF;
    -- An inventory of this node, of another scan, changes the same volumes in another order.
    PERFORM FROM nodes WHERE name = job.node FOR NO KEY UPDATE;
    WITH given AS (
        SELECT DISTINCT ON (volumes.id) volumes.id AS known_volume, result.*,
            (result.figures ->> 'allocated_bytes')::numeric AS allocated, (result.figures ->> 'apparent_bytes')::numeric AS apparent,
            (result.figures ->> 'files')::numeric AS file_count, (result.figures ->> 'directories')::numeric AS directory_count,
            (result.filesystem ->> 'capacity_bytes')::numeric AS capacity, (result.filesystem ->> 'available_bytes')::numeric AS available
        FROM jsonb_to_recordset(coalesce(body -> 'results', '[]')) AS result (
            volume text, completeness text, reason text, method text, figures jsonb, filesystem jsonb, errors jsonb,
            skipped_mounts jsonb, top_files jsonb, top_directories jsonb, duration_ms numeric, age_ms numeric)
        JOIN volumes ON volumes.volume_id = job.node || '/' || result.volume AND volumes.deleted_at IS NULL
        ORDER BY volumes.id
    ), stored AS (
        INSERT INTO scan_results (scan_job_id, volume_id, measured_at, completeness, reason, method, allocated_bytes, apparent_bytes, files,
                                  directories, capacity_bytes, available_bytes, saturated, errors, skipped_mounts, top_files, top_directories,
                                  duration_ms)
        SELECT job.id, given.known_volume, clock_timestamp() - make_interval(secs => least(coalesce(given.age_ms, 0), 864000000)::float8 / 1000),
            given.completeness, given.reason, given.method,
            agent_v1.saturated(given.allocated), agent_v1.saturated(given.apparent), agent_v1.saturated(given.file_count),
            agent_v1.saturated(given.directory_count), agent_v1.saturated(given.capacity), agent_v1.saturated(given.available),
            coalesce(greatest(given.allocated, given.apparent, given.file_count, given.directory_count) > 9223372036854775807, false),
            coalesce(given.errors, '[]'), coalesce(given.skipped_mounts, '[]'), agent_v1.biggest(given.top_files),
            agent_v1.biggest(given.top_directories), agent_v1.saturated(coalesce(given.duration_ms, 0))
        FROM given ORDER BY given.known_volume
        ON CONFLICT (scan_job_id, volume_id) DO NOTHING
        RETURNING id
    )
    SELECT coalesce(array_agg(id), '{}') INTO fresh FROM stored;

    UPDATE volumes SET last_scanned = greatest(volumes.last_scanned, scan_results.measured_at)
    FROM scan_results WHERE scan_results.id = ANY (fresh) AND volumes.id = scan_results.volume_id AND scan_results.completeness <> 'Unknown';

    PERFORM agent_v1.keep_sizes(fresh);
    PERFORM agent_v1.keep_daily_sizes(fresh);
    PERFORM agent_v1.keep_latest(fresh);
    PERFORM agent_v1.keep_rankings(fresh);
    RETURN '{"outcome": "ok"}';
END
$$;

CREATE FUNCTION agent_v1.complete(ticket uuid, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    job scan_jobs;
    stored bigint;
    missing bigint;
BEGIN
    SELECT * INTO job FROM scan_jobs WHERE scan_jobs.ticket = complete.ticket FOR UPDATE;
    IF NOT FOUND OR job.instance IS DISTINCT FROM (body ->> 'instance')::uuid OR job.status NOT IN ('running', 'succeeded') THEN
        RETURN '{"outcome": "fenced"}';
    END IF;
    -- The reply to the first call was lost.
    IF job.status = 'succeeded' THEN
        RETURN '{"outcome": "ok"}';
    END IF;
    IF job.inventory_ticket IS DISTINCT FROM job.ticket THEN
        RETURN jsonb_build_object('outcome', 'incomplete', 'detail', 'the inventory of this attempt was not completed');
    END IF;
    SELECT count(*) INTO stored FROM scan_results WHERE scan_job_id = job.id;
    SELECT count(*) INTO missing FROM volumes
    WHERE node = job.node AND deleted_at IS NULL AND selected_ticket = job.ticket
        AND NOT EXISTS (SELECT FROM scan_results WHERE scan_job_id = job.id AND scan_results.volume_id = volumes.id);
    IF stored <> (body ->> 'results')::bigint OR missing > 0 THEN
        RETURN jsonb_build_object('outcome', 'incomplete', 'detail', format(
            'the agent counts %s results, the database holds %s, and %s selected volumes have none', body ->> 'results', stored, missing));
    END IF;
    UPDATE scan_jobs SET status = 'succeeded', lease_expires_at = NULL, completed_at = clock_timestamp(),
        progress = coalesce(body -> 'progress', progress), reason = NULL, message = NULL
    WHERE id = job.id;
    RETURN '{"outcome": "ok"}';
END
$$;

CREATE FUNCTION agent_v1.fail(ticket uuid, body jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    job scan_jobs := agent_v1.held_job(ticket, body);
    class text := body ->> 'class';
    attempts integer;
    again boolean;
    no_engine boolean := body ->> 'reason' = 'NoDockerEngine';
BEGIN
    IF job.id IS NULL THEN
        RETURN '{"outcome": "fenced"}';
    END IF;
    IF no_engine THEN
        UPDATE nodes SET has_engine = false, engine_id = NULL, engine_version = NULL, data_root = NULL, last_seen_at = clock_timestamp() WHERE name = job.node;
    END IF;
    SELECT coalesce((work ->> 'maxAttempts')::integer, 3) INTO attempts FROM scan_runs WHERE id = job.run_id;
    again := class = 'HandedBack' OR (class = 'Retryable' AND job.attempt < attempts);
    UPDATE scan_jobs SET
        status = CASE WHEN again THEN 'pending' WHEN no_engine THEN 'skipped' ELSE 'failed' END,
        ticket = CASE WHEN again THEN gen_random_uuid() ELSE scan_jobs.ticket END,
        attempt = CASE WHEN again AND class = 'Retryable' THEN attempt + 1 ELSE attempt END,
        not_before = CASE WHEN class = 'Retryable' THEN clock_timestamp() + interval '5 seconds' * attempt ELSE not_before END,
        instance = CASE WHEN again THEN NULL ELSE instance END,
        completed_at = CASE WHEN again THEN NULL ELSE clock_timestamp() END,
        lease_expires_at = NULL,
        reason = left(body ->> 'reason', 64),
        message = left(body ->> 'message', 1024)
    WHERE id = job.id
    RETURNING * INTO job;
    IF again OR class = 'Retryable' THEN
        INSERT INTO audit_events (action, subject, detail)
        VALUES (CASE WHEN again THEN 'JobRetried' ELSE 'JobFailed' END, 'job/' || job.id, jsonb_build_object(
            'run', job.run_id, 'node', job.node, 'attempt', job.attempt, 'status', job.status, 'reason', job.reason));
    END IF;
    RETURN '{"outcome": "ok"}';
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA agent_v1 FROM PUBLIC;
