//! Info labels of a GPU, each read once.

use std::sync::Arc;

use crate::catalog::InfoLabelSource;
use crate::model::Missing;
use crate::nvml::Session;
use crate::nvml::raw::Handle;
use crate::selection::SelectedFamilies;

/// One value per row of the info label slice of the catalog; `None` for a row that is not selected
/// or needs no read.
#[derive(Debug, Default)]
pub struct InfoLabelReader(Vec<Option<Result<Arc<str>, Missing>>>);

impl InfoLabelReader {
    /// Reads all selected values that are not known yet.
    pub fn read(
        &mut self,
        selected: &SelectedFamilies<InfoLabelSource>,
        session: &Session,
        handle: Handle,
    ) {
        self.0.resize(selected.row_count(), None);
        for (row, value) in self.0.iter_mut().enumerate() {
            let Some(InfoLabelSource::Read(read)) =
                selected.metric(row).map(|metric| &metric.source)
            else {
                *value = None;
                continue;
            };
            // An unsupported value is not retried.
            if !matches!(value, Some(Ok(_) | Err(Missing::Unsupported))) {
                *value = Some(read(session, handle).map(Into::into));
            }
        }
    }

    /// The values in the order of the rows.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Option<Result<Arc<str>, Missing>>> {
        self.0.clone()
    }
}
