SET LOCAL lock_timeout = '5s';

-- A name that is used again is another row; the old one stays, deleted, with its history.
CREATE UNIQUE INDEX idx_volumes_volume_id ON volumes (volume_id) WHERE deleted_at IS NULL;
CREATE INDEX idx_volumes_node ON volumes (node) WHERE deleted_at IS NULL;
CREATE INDEX idx_volumes_name ON volumes (name);
CREATE INDEX idx_volumes_driver ON volumes (driver);
CREATE INDEX idx_volumes_is_active ON volumes (is_active);
CREATE INDEX idx_volumes_labels ON volumes USING gin (labels);
CREATE INDEX idx_volumes_options ON volumes USING gin (options);

CREATE UNIQUE INDEX idx_containers_container_id ON containers (container_id, node) WHERE deleted_at IS NULL;
CREATE INDEX idx_containers_node ON containers (node) WHERE deleted_at IS NULL;
CREATE INDEX idx_container_volumes_volume ON container_volumes (volume_id);

CREATE INDEX idx_scan_runs_active ON scan_runs (scan_uid) WHERE completed_at IS NULL;
CREATE INDEX idx_scan_runs_completed ON scan_runs (scan_uid, completed_at DESC);

-- No index on lease or progress: heartbeats stay HOT.
CREATE UNIQUE INDEX idx_scan_jobs_ticket ON scan_jobs (ticket);
CREATE INDEX idx_scan_jobs_node ON scan_jobs (node, run_id DESC);

CREATE UNIQUE INDEX idx_scan_results_job_volume ON scan_results (scan_job_id, volume_id);
CREATE INDEX idx_scan_results_volume ON scan_results (volume_id);

CREATE INDEX idx_volume_sizes_volume_created ON volume_sizes (volume_id, created_at DESC);
