//! Selection of the GPUs and GPU instances that have series (`--devices`).

use std::collections::BTreeSet;
use std::str::FromStr;

use crate::model::Problem;

/// Largest index, far above the number of GPUs of a node.
const INDEX_MAX: u32 = 1024;

/// Which GPUs and GPU instances have series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceSelector {
    /// The GPU instances of a GPU in MIG mode, each with the readings of its GPU repeated; other GPUs
    /// themselves.
    Flexible,
    /// Selected indexes.
    Selected {
        /// GPUs, by index; `None` for no GPU.
        gpus: Option<IndexSet>,
        /// GPU instances, numbered from 0 through the node in the order of GPUs and their instances;
        /// `None` for no instance. If `gpus` is `None`, each has the readings of its GPU repeated.
        instances: Option<IndexSet>,
    },
}

/// A set of indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexSet {
    /// All indexes.
    All,
    /// These indexes.
    Listed(BTreeSet<u32>),
}

/// Why a selection is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.problem())]
pub enum DeviceSelectorError {
    /// An unknown letter.
    UnknownSelector(String),
    /// A list after `f`.
    UnexpectedList(String),
    /// A list item that is neither an index nor a range.
    InvalidIndex(String),
}

impl DeviceSelectorError {
    /// Message and remedy.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::UnknownSelector(text) => Problem::new(
                format!("{text:?} is not a device selection"),
                "use f, g, i or g+i, where g and i take a list as in g:0,2-4",
            ),
            Self::UnexpectedList(list) => {
                Problem::new("f takes no list", format!("use g:{list} or i:{list}"))
            }
            Self::InvalidIndex(item) => Problem::new(
                format!("{item:?} is neither an index nor a range"),
                format!("use numbers up to {INDEX_MAX}, as in 0,2-4"),
            ),
        }
    }
}

impl DeviceSelector {
    /// All GPUs and all GPU instances, without repeated readings.
    #[must_use]
    pub const fn all() -> Self {
        Self::Selected { gpus: Some(IndexSet::All), instances: Some(IndexSet::All) }
    }

    /// Whether a GPU has series of its own. `partitioned`: it has GPU instances.
    #[must_use]
    pub fn selects_gpu(&self, index: u32, partitioned: bool) -> bool {
        match self {
            Self::Flexible => !partitioned,
            Self::Selected { gpus, .. } => gpus.as_ref().is_some_and(|set| set.contains(index)),
        }
    }

    /// Whether a GPU instance has series.
    #[must_use]
    pub fn selects_instance(&self, ordinal: u32) -> bool {
        match self {
            Self::Flexible => true,
            Self::Selected { instances, .. } => {
                instances.as_ref().is_some_and(|set| set.contains(ordinal))
            }
        }
    }

    /// Whether readings that exist for the whole GPU only are repeated for each of its instances.
    #[must_use]
    pub fn repeats_gpu_readings(&self) -> bool {
        matches!(self, Self::Flexible | Self::Selected { gpus: None, .. })
    }

    /// Whether a GPU in MIG mode is read as a whole for the families that are read per GPU instance
    /// otherwise.
    #[must_use]
    pub fn reads_mig_gpu_as_whole(&self) -> bool {
        matches!(self, Self::Selected { instances: None, .. })
    }
}

impl Default for DeviceSelector {
    fn default() -> Self {
        Self::all()
    }
}

impl IndexSet {
    fn contains(&self, index: u32) -> bool {
        match self {
            Self::All => true,
            Self::Listed(indexes) => indexes.contains(&index),
        }
    }
}

impl FromStr for DeviceSelector {
    type Err = DeviceSelectorError;

    fn from_str(text: &str) -> Result<Self, DeviceSelectorError> {
        let (mut gpus, mut instances) = (None, None);
        for part in text.split('+') {
            match part.split_once(':').map_or((part, None), |(head, list)| (head, Some(list))) {
                ("f", None) if text == "f" => return Ok(Self::Flexible),
                ("f", Some(list)) => {
                    return Err(DeviceSelectorError::UnexpectedList(list.to_owned()));
                }
                ("g", list) if gpus.is_none() => gpus = Some(index_set(list)?),
                ("i", list) if instances.is_none() => instances = Some(index_set(list)?),
                _ => return Err(DeviceSelectorError::UnknownSelector(text.to_owned())),
            }
        }
        Ok(Self::Selected { gpus, instances })
    }
}

fn index_set(list: Option<&str>) -> Result<IndexSet, DeviceSelectorError> {
    let Some(list) = list else { return Ok(IndexSet::All) };
    let mut indexes = BTreeSet::new();
    for item in list.split(',') {
        let range = item.split_once('-').unwrap_or((item, item));
        let number = |text: &str| text.trim().parse().ok().filter(|n: &u32| *n <= INDEX_MAX);
        match (number(range.0), number(range.1)) {
            (Some(from), Some(to)) if from <= to => indexes.extend(from..=to),
            _ => return Err(DeviceSelectorError::InvalidIndex(item.to_owned())),
        }
    }
    Ok(IndexSet::Listed(indexes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device_selector(text: &str) -> DeviceSelector {
        text.parse().unwrap()
    }

    #[test]
    fn f_selects_instances_of_partitioned_gpus_and_other_gpus() {
        let flex = device_selector("f");
        assert!(
            flex.selects_gpu(0, false) && !flex.selects_gpu(0, true) && flex.selects_instance(3)
        );
        assert!(flex.repeats_gpu_readings() && !flex.reads_mig_gpu_as_whole());
    }

    #[test]
    fn lists_and_ranges_select() {
        let gpus = device_selector("g:0,2-4");
        let selected: Vec<u32> = (0..6).filter(|gpu| gpus.selects_gpu(*gpu, true)).collect();
        assert_eq!(selected, [0, 2, 3, 4]);
        assert!(
            !gpus.selects_instance(0)
                && gpus.reads_mig_gpu_as_whole()
                && !gpus.repeats_gpu_readings()
        );
        let instances = device_selector("i:1");
        assert!(instances.selects_instance(1) && !instances.selects_instance(0));
        assert!(!instances.selects_gpu(0, false) && instances.repeats_gpu_readings());
        assert_eq!(device_selector("g+i"), DeviceSelector::all());
        let both = device_selector("i:0+g:1");
        assert!(
            both.selects_gpu(1, true) && both.selects_instance(0) && !both.repeats_gpu_readings()
        );
    }

    #[test]
    fn malformed_selections_are_rejected() {
        let error = |text: &str| text.parse::<DeviceSelector>().unwrap_err();
        for text in ["", "x", "g+g", "f+g", "G"] {
            assert_eq!(
                error(text),
                DeviceSelectorError::UnknownSelector(text.to_owned()),
                "{text}"
            );
        }
        assert_eq!(error("f:0"), DeviceSelectorError::UnexpectedList("0".to_owned()));
        for item in ["", "a", "4-2", "1-2-3", "-1", "0-99999999"] {
            assert_eq!(
                error(&format!("g:{item}")),
                DeviceSelectorError::InvalidIndex(item.to_owned()),
                "{item}"
            );
        }
    }
}
