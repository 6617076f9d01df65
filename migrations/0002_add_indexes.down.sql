SET LOCAL lock_timeout = '5s';
DROP INDEX idx_volumes_volume_id, idx_volumes_node, idx_volumes_name, idx_volumes_driver, idx_volumes_is_active, idx_volumes_labels,
    idx_volumes_options, idx_containers_container_id, idx_containers_node, idx_container_volumes_volume, idx_scan_runs_active,
    idx_scan_runs_completed, idx_scan_jobs_ticket, idx_scan_jobs_node, idx_scan_results_job_volume, idx_scan_results_volume,
    idx_volume_sizes_volume_created;
