//! What becomes of an inventory that PostgreSQL refuses for what is in it: it is halved until the row at fault is alone, and that row is sent
//! without what may be at fault. The volume or container itself stays listed: what is not listed counts as gone.

use std::collections::BTreeMap;

use crate::domain::contract::{InventoryBody, InventoryContainer, InventoryVolume};
use crate::store;

/// The label of a row that was stored without its labels, options and paths.
const REFUSED_LABEL: &str = "volumeviz.io/unstorable";
/// In the place of a path that was refused.
const REFUSED_PATH: &str = "(unstorable)";

/// What to send instead, in this order; nothing when there is nothing left that could be at fault.
pub(super) fn smaller(mut chunk: InventoryBody, error: &store::Error) -> Option<Vec<InventoryBody>> {
    match (chunk.volumes.as_mut_slice(), chunk.containers.as_mut_slice()) {
        ([], []) => None,
        ([volume], []) => {
            tracing::warn!(volume.name, "PostgreSQL refuses what Docker says of the volume: {error}");
            strip_volume(volume).then(|| vec![chunk])
        }
        ([], [container]) => {
            tracing::warn!(
                container.id = container.container_id,
                "PostgreSQL refuses what Docker says of the container: {error}"
            );
            strip_container(container).then(|| vec![chunk])
        }
        _ => Some(halves(chunk)),
    }
}

/// Volumes before containers, whose mounts are recorded only for volumes that are known; the totals come with the last row.
fn halves(mut chunk: InventoryBody) -> Vec<InventoryBody> {
    let (volumes, containers) = (chunk.volumes.len(), chunk.containers.len());
    let later = if containers == 0 {
        InventoryBody { volumes: chunk.volumes.split_off(volumes / 2), ..chunk.clone() }
    } else if volumes == 0 {
        InventoryBody { containers: chunk.containers.split_off(containers / 2), ..chunk.clone() }
    } else {
        InventoryBody { volumes: Vec::new(), containers: std::mem::take(&mut chunk.containers), ..chunk.clone() }
    };
    vec![InventoryBody { totals: None, ..chunk }, later]
}

fn unstorable() -> BTreeMap<String, String> {
    BTreeMap::from([(REFUSED_LABEL.to_owned(), "true".to_owned())])
}

/// `false`: it is already.
fn strip_volume(volume: &mut InventoryVolume) -> bool {
    let labels = unstorable();
    if volume.labels == labels {
        return false;
    }
    volume.labels = labels;
    volume.options.clear();
    REFUSED_PATH.clone_into(&mut volume.mountpoint);
    volume.created_at = None;
    true
}

fn strip_container(container: &mut InventoryContainer) -> bool {
    let labels = unstorable();
    if container.labels == labels {
        return false;
    }
    container.labels = labels;
    container.image.clear();
    for mount in &mut container.mounts {
        REFUSED_PATH.clone_into(&mut mount.destination);
    }
    true
}
