SET LOCAL lock_timeout = '5s';

-- A name that is used again is another row; the old one stays, deleted, with its history.
CREATE UNIQUE INDEX idx_volumes_volume_id ON volumes (volume_id) WHERE deleted_at IS NULL;
CREATE INDEX idx_volumes_driver ON volumes (driver);
CREATE INDEX idx_volumes_is_active ON volumes (is_active);
CREATE INDEX idx_volumes_labels ON volumes USING gin (labels jsonb_path_ops);
CREATE INDEX idx_volumes_options ON volumes USING gin (options jsonb_path_ops);
CREATE INDEX idx_volumes_deleted ON volumes (deleted_at) WHERE deleted_at IS NOT NULL;

-- The sort keys of lists, each ending in the id; what is unknown comes last in either direction.
CREATE INDEX idx_volumes_name ON volumes (name, id);
CREATE INDEX idx_volumes_node ON volumes (node, id);
CREATE INDEX idx_volumes_first_seen ON volumes (first_seen_at, id);
CREATE INDEX idx_volume_rankings_biggest ON volume_rankings (coalesce(allocated_bytes, -1) DESC, volume_id DESC);
CREATE INDEX idx_volume_rankings_smallest ON volume_rankings (coalesce(allocated_bytes, 9223372036854775807), volume_id);
CREATE INDEX idx_volume_rankings_fastest ON volume_rankings (coalesce(growth_bytes_per_day, -9223372036854775808) DESC, volume_id DESC);
CREATE INDEX idx_volume_rankings_slowest ON volume_rankings (coalesce(growth_bytes_per_day, 9223372036854775807), volume_id);

CREATE UNIQUE INDEX idx_containers_container_id ON containers (container_id, node) WHERE deleted_at IS NULL;
CREATE INDEX idx_containers_node ON containers (node) WHERE deleted_at IS NULL;
CREATE INDEX idx_containers_deleted ON containers (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX idx_container_volumes_volume ON container_volumes (volume_id);

CREATE INDEX idx_scan_runs_active ON scan_runs (scan_uid) WHERE completed_at IS NULL;
CREATE INDEX idx_scan_runs_completed ON scan_runs (scan_uid, completed_at DESC);
CREATE INDEX idx_scan_runs_scan ON scan_runs (scan_uid, id DESC);
CREATE INDEX idx_scan_runs_name ON scan_runs (scan_name, id DESC);

-- No index on lease or progress: heartbeats stay HOT.
CREATE UNIQUE INDEX idx_scan_jobs_ticket ON scan_jobs (ticket);
CREATE INDEX idx_scan_jobs_node ON scan_jobs (node, run_id DESC);

CREATE UNIQUE INDEX idx_scan_results_job_volume ON scan_results (scan_job_id, volume_id);
CREATE INDEX idx_scan_results_volume ON scan_results (volume_id);

CREATE INDEX idx_volume_sizes_volume_created ON volume_sizes (volume_id, created_at DESC);

-- One open state a subject.
CREATE UNIQUE INDEX idx_alerts_open ON alerts (alert_uid, scope, subject) WHERE resolved_at IS NULL;
CREATE INDEX idx_alerts_open_id ON alerts (id DESC) WHERE resolved_at IS NULL;
CREATE INDEX idx_alerts_open_name ON alerts (alert_name, id DESC) WHERE resolved_at IS NULL;
CREATE INDEX idx_alerts_name ON alerts (alert_name, id DESC);
CREATE INDEX idx_alerts_volume ON alerts (volume_id);
CREATE INDEX idx_alerts_resolved ON alerts (resolved_at) WHERE resolved_at IS NOT NULL;
CREATE INDEX idx_alert_notifications_receiver ON alert_notifications (alert_uid, receiver_name, id);
CREATE INDEX idx_alert_notifications_open ON alert_notifications (alert_uid, receiver_name, id) WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX idx_alert_notifications_created ON alert_notifications (created_at);

CREATE INDEX idx_system_metrics_name_created ON system_metrics (name, subject, created_at DESC);
CREATE INDEX idx_audit_events_subject ON audit_events (subject, id DESC);
CREATE INDEX idx_audit_events_created ON audit_events (created_at);
