//! Framebuffer of a device in bytes.

use super::{Probe, bytes};
use crate::model::{Missing, Reading};

impl Probe<'_> {
    /// Total framebuffer, bytes.
    ///
    /// # Errors
    /// As [`Probe::memory`].
    pub fn memory_total_bytes(&self) -> Reading {
        Ok(bytes(self.memory()?.total))
    }

    /// Used framebuffer, bytes.
    ///
    /// # Errors
    /// As [`Probe::memory`].
    pub fn memory_used_bytes(&self) -> Reading {
        Ok(bytes(self.memory()?.used))
    }

    /// Free framebuffer, bytes.
    ///
    /// # Errors
    /// As [`Probe::memory`].
    pub fn memory_free_bytes(&self) -> Reading {
        Ok(bytes(self.memory()?.free))
    }

    /// Framebuffer reserved by the driver, bytes.
    ///
    /// # Errors
    /// As [`Probe::memory_reserved`].
    pub fn memory_reserved_bytes(&self) -> Reading {
        Ok(bytes(self.memory()?.reserved.ok_or(Missing::Unsupported)?))
    }
}
