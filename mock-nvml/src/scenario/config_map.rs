//! A `ConfigMap` that the API server has.

use std::collections::BTreeMap;

/// A `ConfigMap`.
#[derive(Clone, Debug)]
pub(crate) struct ConfigMap {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) data: BTreeMap<String, String>,
}
