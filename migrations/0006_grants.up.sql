-- The controller plans and reads; it changes runs and jobs only. People read.
SET LOCAL lock_timeout = '5s';
GRANT SELECT ON installation, nodes, volumes, volume_latest, containers, container_volumes, scan_runs, scan_jobs, scan_results, volume_sizes,
    volume_sizes_daily, migrations TO volumeviz_controller, volumeviz_readonly;
GRANT INSERT ON installation, scan_runs, scan_jobs TO volumeviz_controller;
GRANT UPDATE ON scan_runs, scan_jobs TO volumeviz_controller;
