SET LOCAL lock_timeout = '5s';
DROP FUNCTION audit_migration() CASCADE;
DROP TABLE audit_events, system_metrics, alert_notifications, alerts, volume_sizes_daily, volume_sizes, scan_results, scan_jobs, scan_runs,
    container_volumes, containers, volume_rankings, volume_latest, volumes, nodes, installation;
