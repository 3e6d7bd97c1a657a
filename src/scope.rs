//! Which GPUs and GPU instances have series (`--devices`).

use std::collections::BTreeSet;
use std::str::FromStr;

/// More than any node has; a range is not followed further.
const INDEX_MAX: u32 = 1024;

/// Which GPUs and GPU instances have series, and where those of a divided GPU stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// GPU instances where there are some, with the readings of their GPU repeated on each; GPUs
    /// elsewhere.
    Flex,
    /// Whatever is picked.
    Picked {
        /// GPUs, by index; none for none.
        gpus: Option<Picks>,
        /// GPU instances, counted through the node from 0 in the order of GPUs and their instances.
        /// Without GPUs beside them they have their GPU's readings repeated on each.
        instances: Option<Picks>,
    },
}

/// All of a kind, or some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picks {
    /// All.
    All,
    /// These.
    Some(BTreeSet<u32>),
}

/// Why a text picks nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// An unknown letter.
    #[error("{0:?}: give f, g or i, or g+i, each of g and i with a list as in g:0,2-4")]
    Letter(String),
    /// A list after `f`.
    #[error("f picks by itself and takes no list; give g:{0} or i:{0}")]
    FlexList(String),
    /// A list with something else than numbers and ranges.
    #[error("{0:?} is neither a number nor a range as in 2-4, up to {INDEX_MAX}")]
    Index(String),
}

impl Scope {
    /// GPUs and instances side by side: nothing is repeated.
    #[must_use]
    pub const fn all() -> Self {
        Self::Picked { gpus: Some(Picks::All), instances: Some(Picks::All) }
    }

    /// Whether a GPU has series of its own; `divided`: it has GPU instances.
    #[must_use]
    pub fn has_gpu(&self, index: u32, divided: bool) -> bool {
        match self {
            Self::Flex => !divided,
            Self::Picked { gpus, .. } => gpus.as_ref().is_some_and(|picks| picks.have(index)),
        }
    }

    /// Whether a GPU instance has series.
    #[must_use]
    pub fn has_instance(&self, ordinal: u32) -> bool {
        match self {
            Self::Flex => true,
            Self::Picked { instances, .. } => {
                instances.as_ref().is_some_and(|picks| picks.have(ordinal))
            }
        }
    }

    /// Whether what is known of a divided GPU only is repeated on each of its instances.
    #[must_use]
    pub fn repeats(&self) -> bool {
        matches!(self, Self::Flex | Self::Picked { gpus: None, .. })
    }

    /// Whether a divided GPU tells as a whole what its instances would tell.
    #[must_use]
    pub fn undivided(&self) -> bool {
        matches!(self, Self::Picked { instances: None, .. })
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self::all()
    }
}

impl Picks {
    fn have(&self, index: u32) -> bool {
        match self {
            Self::All => true,
            Self::Some(picked) => picked.contains(&index),
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let (mut gpus, mut instances) = (None, None);
        for part in text.split('+') {
            match part.split_once(':').map_or((part, None), |(head, list)| (head, Some(list))) {
                ("f", None) if text == "f" => return Ok(Self::Flex),
                ("f", Some(list)) => return Err(ScopeError::FlexList(list.to_owned())),
                ("g", list) if gpus.is_none() => gpus = Some(picks(list)?),
                ("i", list) if instances.is_none() => instances = Some(picks(list)?),
                _ => return Err(ScopeError::Letter(text.to_owned())),
            }
        }
        Ok(Self::Picked { gpus, instances })
    }
}

fn picks(list: Option<&str>) -> Result<Picks, ScopeError> {
    let Some(list) = list else { return Ok(Picks::All) };
    let mut picked = BTreeSet::new();
    for item in list.split(',') {
        let range = item.split_once('-').unwrap_or((item, item));
        let number = |text: &str| text.trim().parse().ok().filter(|n: &u32| *n <= INDEX_MAX);
        match (number(range.0), number(range.1)) {
            (Some(from), Some(to)) if from <= to => picked.extend(from..=to),
            _ => return Err(ScopeError::Index(item.to_owned())),
        }
    }
    Ok(Picks::Some(picked))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    #[test]
    fn flex_takes_the_finest_that_there_is() {
        let flex = scope("f");
        assert!(flex.has_gpu(0, false) && !flex.has_gpu(0, true) && flex.has_instance(3));
        assert!(flex.repeats() && !flex.undivided());
    }

    #[test]
    fn lists_and_ranges_pick() {
        let some = scope("g:0,2-4");
        let picked: Vec<u32> = (0..6).filter(|gpu| some.has_gpu(*gpu, true)).collect();
        assert_eq!(picked, [0, 2, 3, 4]);
        assert!(!some.has_instance(0) && some.undivided() && !some.repeats());
        let instances = scope("i:1");
        assert!(instances.has_instance(1) && !instances.has_instance(0));
        assert!(!instances.has_gpu(0, false) && instances.repeats());
        assert_eq!(scope("g+i"), Scope::all());
        let both = scope("i:0+g:1");
        assert!(both.has_gpu(1, true) && both.has_instance(0) && !both.repeats());
    }

    #[test]
    fn what_picks_nothing_is_refused() {
        let error = |text: &str| text.parse::<Scope>().unwrap_err();
        for text in ["", "x", "g+g", "f+g", "G"] {
            assert_eq!(error(text), ScopeError::Letter(text.to_owned()), "{text}");
        }
        assert_eq!(error("f:0"), ScopeError::FlexList("0".to_owned()));
        for item in ["", "a", "4-2", "1-2-3", "-1", "0-99999999"] {
            assert_eq!(error(&format!("g:{item}")), ScopeError::Index(item.to_owned()), "{item}");
        }
    }
}
