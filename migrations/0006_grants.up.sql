-- All rights of the three groups that own nothing; `volumeviz migrate grants` runs it again. The controller plans, reads, audits, keeps the state
-- of alerts and tells which nodes have left; agents execute six functions; people read.
SET LOCAL lock_timeout = '5s';
GRANT SELECT ON installation, nodes, volumes, volume_latest, volume_rankings, containers, container_volumes, scan_runs, scan_jobs, scan_results,
    volume_sizes, volume_sizes_daily, alerts, alert_notifications, system_metrics, audit_events, table_figures, migrations
    TO volumeviz_controller, volumeviz_readonly;
GRANT INSERT ON installation, scan_runs, scan_jobs, alerts, alert_notifications, audit_events TO volumeviz_controller;
GRANT UPDATE ON scan_runs, scan_jobs, alerts, alert_notifications TO volumeviz_controller;
GRANT UPDATE (absent_since) ON nodes TO volumeviz_controller;

GRANT USAGE ON SCHEMA agent_v1 TO volumeviz_agent;
GRANT EXECUTE ON FUNCTION agent_v1.claim(uuid, jsonb), agent_v1.heartbeat(uuid, jsonb), agent_v1.inventory(uuid, jsonb),
    agent_v1.report(uuid, jsonb), agent_v1.complete(uuid, jsonb), agent_v1.fail(uuid, jsonb) TO volumeviz_agent;
