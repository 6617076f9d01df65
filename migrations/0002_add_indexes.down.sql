SET LOCAL lock_timeout = '5s';
DROP INDEX idx_volumes_volume_id, idx_volumes_driver, idx_volumes_is_active, idx_volumes_labels, idx_volumes_options,
    idx_volumes_deleted, idx_volumes_name, idx_volumes_node, idx_volumes_first_seen, idx_volume_rankings_biggest,
    idx_volume_rankings_smallest, idx_volume_rankings_fastest, idx_volume_rankings_slowest, idx_containers_container_id,
    idx_containers_node, idx_containers_deleted, idx_container_volumes_volume, idx_scan_runs_active,
    idx_scan_runs_completed, idx_scan_runs_scan, idx_scan_runs_name, idx_scan_jobs_ticket, idx_scan_jobs_node, idx_scan_results_job_volume,
    idx_scan_results_volume, idx_volume_sizes_volume_created, idx_alerts_open,
    idx_alerts_open_id, idx_alerts_open_name, idx_alerts_name, idx_alerts_volume, idx_alerts_resolved,
    idx_alert_notifications_receiver, idx_alert_notifications_open, idx_alert_notifications_created, idx_system_metrics_name_created,
    idx_audit_events_subject, idx_audit_events_created;
