//! What is left of a life, without ids and times.

use serde_json::{Map, Value, json};

/// The rows that tell of runs, as one JSON object.
pub(crate) const ROWS: &str = "SELECT jsonb_build_object(
    'runs', (
        SELECT jsonb_agg(jsonb_build_object('key', regexp_replace(run_key, '^s:.*', 's:DUE'), 'work', work, 'result', result, 'reason', reason, 'jobs', (
            SELECT jsonb_agg(jsonb_build_object('node', node, 'status', status, 'attempt', attempt, 'reason', reason, 'message', message,
                'held', lease_expires_at IS NOT NULL, 'results', (
                    SELECT jsonb_agg(jsonb_build_object('volume', volumes.volume_id, 'completeness', completeness, 'bytes', allocated_bytes)
                                     ORDER BY volumes.volume_id)
                    FROM scan_results JOIN volumes ON volumes.id = scan_results.volume_id WHERE scan_job_id = scan_jobs.id))
                ORDER BY node)
            FROM scan_jobs WHERE run_id = scan_runs.id)) ORDER BY id)
        FROM scan_runs),
    'audit', (SELECT jsonb_object_agg(action, n)
              FROM (SELECT action, count(*) AS n FROM audit_events WHERE actor <> 'vv_owner' GROUP BY action) AS event),
    'alerts', (SELECT jsonb_agg(jsonb_build_object('subject', subject, 'state', state, 'rule', rule, 'value', value, 'message', message,
                   'fired', fired_at IS NOT NULL, 'told', told_at IS NOT NULL) ORDER BY created_at, subject) FROM alerts),
    'told', (SELECT jsonb_agg(jsonb_build_object('event', event, 'receiver', receiver_name, 'delivered', delivered_at IS NOT NULL,
                   'worst', payload #>> '{subjects,0,volume}', 'subjects', jsonb_array_length(payload -> 'subjects')) ORDER BY id) FROM alert_notifications),
    'sizes', (SELECT count(*) FROM volume_sizes),
    'samples', (SELECT coalesce(sum(samples), 0) FROM volume_sizes_daily),
    'nodes', (SELECT jsonb_object_agg(name, absent_since IS NULL) FROM nodes),
    'clusters', (SELECT count(*) FROM installation))";

/// Replaces what no two lives have in common.
pub(crate) fn normalised(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| {
                let value = if value.is_null() { Value::Null } else { field(&name, value) };
                (name, value)
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(normalised).collect(),
        other => other,
    }
}

fn field(name: &str, value: Value) -> Value {
    match name {
        "id" | "cancelRunID" | "durationSeconds" | "since" | "expression" | "schedule" if !value.is_object() => {
            json!(name)
        }
        _ if name.ends_with("Time") => json!("time"),
        "message" => {
            let mut text: Vec<char> = value.as_str().unwrap_or_default().chars().collect();
            text.iter_mut().filter(|c| c.is_ascii_digit()).for_each(|c| *c = '#');
            text.dedup_by(|a, b| (*a, *b) == ('#', '#'));
            text.into_iter().collect::<String>().into()
        }
        _ => normalised(value),
    }
}

/// Where two ends are not the same.
pub(crate) fn differences(expected: &Value, found: &Value) -> Vec<String> {
    let (expected, found) = (flat("", expected), flat("", found));
    let lost = expected.iter().filter(|line| !found.contains(line)).map(|line| format!("- {line}"));
    let gained = found.iter().filter(|line| !expected.contains(line)).map(|line| format!("+ {line}"));
    lost.chain(gained).collect()
}

fn flat(path: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, value)| flat(&format!("{path}.{name}"), value)).collect()
        }
        Value::Array(items) => {
            (0..).zip(items).flat_map(|(n, value): (usize, _)| flat(&format!("{path}[{n}]"), value)).collect()
        }
        leaf => vec![format!("{path} = {leaf}")],
    }
}
