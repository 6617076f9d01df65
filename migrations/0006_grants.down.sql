SET LOCAL lock_timeout = '5s';
REVOKE ALL ON installation, nodes, volumes, volume_latest, containers, container_volumes, scan_runs, scan_jobs, scan_results, volume_sizes,
    volume_sizes_daily, migrations FROM volumeviz_controller, volumeviz_readonly;
