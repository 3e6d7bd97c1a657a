//! JSON maps of text of which only some keys are kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::kube::quantity::JsonQuantity;

/// A map that keeps the keys that match `F`. Values of other keys are not copied.
#[derive(Debug)]
pub(super) struct FilteredMap<F>(pub(super) BTreeMap<Box<str>, Box<str>>, PhantomData<F>);

impl<F> Default for FilteredMap<F> {
    fn default() -> Self {
        Self(BTreeMap::new(), PhantomData)
    }
}

impl<F: KeyFilter> FilteredMap<F> {
    /// Those of `entries` that are kept.
    pub(super) fn of(entries: impl IntoIterator<Item = (String, String)>) -> Self {
        let kept = entries.into_iter().filter(|(key, _)| F::matches(key));
        Self(kept.map(|(key, value)| (key.into(), value.into())).collect(), PhantomData)
    }
}

/// Which keys a [`FilteredMap`] keeps.
pub(super) trait KeyFilter {
    fn matches(key: &str) -> bool;
}

impl<'de, F: KeyFilter> Deserialize<'de> for FilteredMap<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Filter<F>(PhantomData<F>);
        impl<'de, F: KeyFilter> Visitor<'de> for Filter<F> {
            type Value = FilteredMap<F>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FilteredMap<F>, A::Error> {
                let mut filtered = FilteredMap::default();
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    if !F::matches(&key) {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    let value: JsonQuantity = map.next_value()?;
                    filtered.0.insert(key.into(), value.into_text());
                }
                Ok(filtered)
            }
        }
        deserializer.deserialize_map(Filter(PhantomData))
    }
}
