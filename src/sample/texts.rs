//! Texts that label a GPU's series, each asked for once.

use std::sync::Arc;

use crate::catalog::TextSource;
use crate::model::Missing;
use crate::nvml::Session;
use crate::nvml::raw::Handle;
use crate::selection::Chosen;

/// One text per row of the text slice, none for what is not chosen or known without asking.
#[derive(Debug, Default)]
pub struct Texts(Vec<Option<Result<Arc<str>, Missing>>>);

impl Texts {
    /// Asks for every text that is chosen and not known yet.
    pub fn read(&mut self, chosen: &Chosen<TextSource>, session: &Session, handle: Handle) {
        self.0.resize(chosen.slice_len(), None);
        for (row, text) in self.0.iter_mut().enumerate() {
            let Some(TextSource::Read(read)) = chosen.metric(row).map(|metric| &metric.source)
            else {
                *text = None;
                continue;
            };
            // What the board does not have it will not get.
            if !matches!(text, Some(Ok(_) | Err(Missing::Unsupported))) {
                *text = Some(read(session, handle).map(Into::into));
            }
        }
    }

    /// The texts, in the order of their rows.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Option<Result<Arc<str>, Missing>>> {
        self.0.clone()
    }
}
