SET LOCAL lock_timeout = '5s';
REVOKE ALL ON installation, nodes, volumes, volume_latest, volume_rankings, containers, container_volumes, scan_runs, scan_jobs, scan_results,
    volume_sizes, volume_sizes_daily, alerts, alert_notifications, system_metrics, audit_events, table_figures, migrations
    FROM volumeviz_controller, volumeviz_readonly;
REVOKE UPDATE (absent_since) ON nodes FROM volumeviz_controller;
REVOKE ALL ON SCHEMA agent_v1 FROM volumeviz_agent;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA agent_v1 FROM volumeviz_agent;
