//! What Docker lists, bounded while it is decoded: Docker itself bounds next to nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::domain::contract::{Engine, InventoryContainer, InventoryMount, InventoryVolume};
use crate::domain::selector::VolumeKind;
use crate::domain::text::{bounded, storable};

/// Bytes of a name, an id, a driver, an image. Names are in keys of the database's indexes, which take 2.7 kB in all; file systems allow 255.
pub const MAX_NAME: usize = 512;
/// Bytes of a path inside a container, which is in such a key as well.
pub const MAX_DESTINATION: usize = 1024;
/// Bytes of a path on the node: the kernel takes no longer one.
pub const MAX_PATH: usize = 4096;
/// Bytes of a label's or an option's key.
pub const MAX_KEY: usize = 317;
/// Bytes of a label's or an option's value.
pub const MAX_VALUE: usize = 4096;
/// Labels, or options, of one object.
pub const MAX_LABELS: usize = 256;
/// Bytes of all of them, or of all options: the HTTP API tells them of 500 objects at a time.
pub const MAX_LABELS_BYTES: usize = 16 << 10;
/// Volumes that one container mounts. Of more none is left out: what is not known to be in use could be taken for unused.
const MAX_MOUNTS: usize = 4096;
/// Bytes of memory for all volumes, and for all containers: 20,000 with a dozen usual labels each.
pub const MAX_KEPT: usize = 48 << 20;
/// The label that says how many others were left out.
const LEFT_OUT_LABEL: &str = "volumeviz.io/left-out";
/// The label of volumes that Docker named itself (Engine 23 and newer).
const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";
/// What a string, and an entry of a map, take beside their text.
const STRING: usize = size_of::<String>() + 16;
const ENTRY: usize = 2 * STRING + 16;

/// The answer to `/version`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Version {
    pub(super) api_version: Text<MAX_NAME>,
}

/// The answer to `/info`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Info {
    #[serde(rename = "ID")]
    id: Text<MAX_NAME>,
    server_version: Text<MAX_NAME>,
    docker_root_dir: Text<MAX_PATH>,
}

impl From<Info> for Engine {
    fn from(info: Info) -> Self {
        Self { id: info.id.0, version: info.server_version.0, data_root: info.docker_root_dir.0 }
    }
}

/// The answer to `/volumes`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Volumes {
    pub(super) volumes: Kept<Volume, InventoryVolume>,
}

/// The answer to `/containers/json`.
pub(super) type Containers = Kept<Container, InventoryContainer>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Volume {
    name: Text<MAX_NAME>,
    driver: Text<MAX_NAME>,
    mountpoint: Text<MAX_PATH>,
    scope: Text<MAX_NAME>,
    labels: Labels,
    options: Labels,
    created_at: Option<Text<MAX_NAME>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Container {
    id: Text<MAX_NAME>,
    names: First,
    image: Text<MAX_NAME>,
    state: Text<MAX_NAME>,
    labels: Labels,
    mounts: Mounts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Mount {
    name: Text<MAX_NAME>,
    destination: Text<MAX_DESTINATION>,
    #[serde(rename = "RW")]
    read_write: Option<bool>,
}

/// About how much memory it takes.
pub(in crate::agent) trait Weight {
    /// In bytes.
    fn weight(&self) -> usize;
}

impl Weight for InventoryVolume {
    fn weight(&self) -> usize {
        let Self { name, driver, mountpoint, scope, labels, options, created_at, .. } = self;
        let texts = [name, driver, mountpoint, scope].map(String::len).iter().sum::<usize>();
        let created_at = created_at.as_ref().map_or(0, String::len);
        size_of::<Self>() + 5 * 16 + texts + created_at + weight_of(labels) + weight_of(options)
    }
}

impl Weight for InventoryContainer {
    fn weight(&self) -> usize {
        let Self { container_id, name, image, state, labels, mounts } = self;
        let texts = [container_id, name, image, state].map(String::len).iter().sum::<usize>();
        let mount = |mount: &InventoryMount| 3 * STRING + mount.volume.len() + mount.destination.len();
        size_of::<Self>() + 5 * 16 + texts + weight_of(labels) + mounts.iter().map(mount).sum::<usize>()
    }
}

fn weight_of(labels: &BTreeMap<String, String>) -> usize {
    labels.iter().map(|(key, value)| ENTRY + key.len() + value.len()).sum()
}

impl From<Volume> for Option<InventoryVolume> {
    fn from(volume: Volume) -> Self {
        Some(InventoryVolume {
            kind: kind(&volume.name.0, &volume.labels),
            name: volume.name.0,
            driver: volume.driver.0,
            mountpoint: volume.mountpoint.0,
            scope: volume.scope.0,
            labels: volume.labels.into(),
            options: volume.options.into(),
            selected: false,
            created_at: volume.created_at.map(|date| date.0),
            inode: None,
            birth_time_ns: None,
        })
    }
}

/// Engines before 23 did not label the volumes they named.
fn kind(name: &str, labels: &Labels) -> VolumeKind {
    let hexadecimal = name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hexadecimal || labels.has_anonymous { VolumeKind::Anonymous } else { VolumeKind::Named }
}

impl From<Container> for Option<InventoryContainer> {
    fn from(container: Container) -> Self {
        let Container { id: Text(container_id), names: First(Text(name)), image, state, labels, mounts } = container;
        (!container_id.is_empty()).then(|| InventoryContainer {
            container_id,
            name,
            image: image.0,
            state: state.0,
            labels: labels.into(),
            mounts: mounts.0,
        })
    }
}

/// Text that PostgreSQL can store, of at most so many bytes; `null` is empty.
#[derive(Debug, Default)]
pub(super) struct Text<const MOST: usize>(pub(super) String);

impl<'de, const MOST: usize> Deserialize<'de> for Text<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfText<const MOST: usize>;

        impl<const MOST: usize> Visitor<'_> for OfText<MOST> {
            type Value = Text<MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                // Cut first: a long text is not copied whole to escape what is in it.
                Ok(Text(bounded(storable(&bounded(text.into(), MOST)), MOST).into_owned()))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Text::default())
            }
        }

        deserializer.deserialize_any(OfText)
    }
}

/// Labels or options; of too many, the first by key, and how many there were besides.
#[derive(Debug, Default)]
struct Labels {
    first: BTreeMap<String, String>,
    /// Of the text of these.
    bytes: usize,
    left_out: usize,
    /// The first by key of those that were left out: none after it is among the others.
    end: Option<String>,
    has_anonymous: bool,
}

impl Labels {
    fn add(&mut self, key: String, value: String) {
        self.has_anonymous |= key == ANONYMOUS_LABEL;
        if self.end.as_ref().is_some_and(|end| key >= *end) {
            self.left_out += 1;
            return;
        }
        let of_key = key.len();
        self.bytes += of_key + value.len();
        if let Some(before) = self.first.insert(key, value) {
            self.bytes -= of_key + before.len();
        }
        while self.first.len() > MAX_LABELS || self.bytes > MAX_LABELS_BYTES {
            let Some((key, value)) = self.first.pop_last() else { break };
            self.bytes -= key.len() + value.len();
            self.left_out += 1;
            self.end = Some(key);
        }
    }
}

impl From<Labels> for BTreeMap<String, String> {
    fn from(Labels { mut first, left_out, .. }: Labels) -> Self {
        if left_out > 0 {
            first.insert(LEFT_OUT_LABEL.to_owned(), left_out.to_string());
        }
        first
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfLabels;

        impl<'de> Visitor<'de> for OfLabels {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of text")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = Labels::default();
                while let Some((Text(key), Text(value))) = map.next_entry::<Text<MAX_KEY>, Text<MAX_VALUE>>()? {
                    labels.add(key, value);
                }
                Ok(labels)
            }

            fn visit_unit<E>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }
        }

        deserializer.deserialize_any(OfLabels)
    }
}

/// A list's first text, without the slash that Docker puts before names.
#[derive(Debug, Default)]
struct First(Text<MAX_NAME>);

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut first = None;
        each(deserializer, |Text(text): Text<MAX_NAME>| {
            first.get_or_insert_with(|| Text(text.trim_start_matches('/').to_owned()));
            Ok(())
        })?;
        Ok(Self(first.unwrap_or_default()))
    }
}

/// Those mounts that are of volumes: only these have a name.
#[derive(Debug, Default)]
struct Mounts(Vec<InventoryMount>);

impl<'de> Deserialize<'de> for Mounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut mounts = Vec::new();
        each(deserializer, |Mount { name: Text(volume), destination, read_write }: Mount| {
            if volume.is_empty() {
                return Ok(());
            }
            if mounts.len() == MAX_MOUNTS {
                return Err(format!("a container mounts more than {MAX_MOUNTS} volumes"));
            }
            let read_write = read_write.unwrap_or(true);
            mounts.push(InventoryMount { volume, destination: destination.0, read_write });
            Ok(())
        })?;
        Ok(Self(mounts))
    }
}

/// A list of `L` as it is kept: as `T`, within [`MAX_KEPT`].
#[derive(Debug)]
pub(super) struct Kept<L, T>(pub(super) Vec<T>, PhantomData<L>);

impl<L, T> Default for Kept<L, T> {
    fn default() -> Self {
        Self(Vec::new(), PhantomData)
    }
}

impl<'de, L, T> Deserialize<'de> for Kept<L, T>
where
    L: Deserialize<'de> + Into<Option<T>>,
    T: Weight,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (mut kept, mut weight) = (Vec::new(), 0_usize);
        each(deserializer, |listed: L| {
            let Some(item) = listed.into() else { return Ok(()) };
            weight = weight.saturating_add(item.weight());
            if weight > MAX_KEPT {
                return Err(format!("its first {} take {MAX_KEPT} bytes of memory, and no more is kept", kept.len()));
            }
            kept.push(item);
            Ok(())
        })?;
        Ok(Self(kept, PhantomData))
    }
}

/// Takes the items of a list one by one, until there is a problem; `null` has none.
fn each<'de, D, L>(deserializer: D, take: impl FnMut(L) -> Result<(), String>) -> Result<(), D::Error>
where
    D: Deserializer<'de>,
    L: Deserialize<'de>,
{
    struct Each<F, L>(F, PhantomData<L>);

    impl<'de, F, L> Visitor<'de> for Each<F, L>
    where
        F: FnMut(L) -> Result<(), String>,
        L: Deserialize<'de>,
    {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(item) = list.next_element()? {
                (self.0)(item).map_err(A::Error::custom)?;
            }
            Ok(())
        }

        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
    }

    deserializer.deserialize_any(Each(take, PhantomData))
}

#[cfg(test)]
mod tests;
