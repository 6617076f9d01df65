//! The Grafana dashboards say what each panel is. What they ask for is in `promql.rs`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::chart::objects;

/// Every dashboard, by the name of its ConfigMap.
fn dashboards(values: &[&str]) -> Vec<(Value, Value)> {
    let maps = objects(values).into_iter().filter(|object| object["metadata"]["labels"]["grafana_dashboard"] == "1");
    maps.map(|map| {
        let [text] = map["data"].as_object().unwrap().values().collect::<Vec<_>>()[..] else { panic!("one each") };
        (map["metadata"].clone(), serde_json::from_str(text.as_str().unwrap()).unwrap())
    })
    .collect()
}

/// The panels of a dashboard that show something.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
}

/// What other tests look at is then all there is.
#[test]
fn every_panel_asks_something_and_rows_hide_none() {
    for (_, dashboard) in dashboards(&["dashboards.enabled=true"]) {
        for panel in dashboard["panels"].as_array().unwrap() {
            let is_row = panel["type"] == "row";
            let number = |list: &str| panel[list].as_array().map_or(0, Vec::len);
            assert_eq!((number("targets") > 0, number("panels")), (!is_row, 0), "{panel}");
        }
    }
}

#[test]
fn there_are_two_for_the_sidecar_if_asked_for() {
    assert!(dashboards(&[]).is_empty());
    let chosen =
        dashboards(&["dashboards.enabled=true", "dashboards.namespace=grafana", "dashboards.annotations.folder=a"]);
    assert_eq!(chosen.len(), 2);
    for (metadata, _) in &chosen {
        assert_eq!(
            (metadata["namespace"].as_str(), metadata["annotations"]["folder"].as_str()),
            (Some("grafana"), Some("a"))
        );
    }
    let uids: BTreeSet<_> = chosen.iter().map(|(_, dashboard)| dashboard["uid"].as_str().unwrap()).collect();
    assert_eq!(uids.len(), 2, "{uids:?}");
}

#[test]
fn every_panel_says_what_it_is_and_has_its_place() {
    for (_, dashboard) in dashboards(&["dashboards.enabled=true"]) {
        let mut titles = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(!title.is_empty() && titles.insert(title), "{title}: twice");
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
            assert!(panel["fieldConfig"]["defaults"]["unit"].as_str().is_some_and(|unit| !unit.is_empty()), "{title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(x + w <= 24, "{title}");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{title} lies on another");
            }
        }
    }
}
