//! Framebuffer and BAR1 memory.

use nvml_wrapper::struct_wrappers::device::BAR1MemoryInfo;

use super::{Probe, bytes, mebibytes};
use crate::model::{Missing, Reading};
use crate::nvml::raw;
use crate::nvml::raw::memory::Memory;

impl Probe<'_> {
    /// Framebuffer, bytes (`nvmlDeviceGetMemoryInfo_v2`, v1 before driver 510).
    ///
    /// # Errors
    /// Returns the NVML error; invalid if the total is 0 or less than a process certainly uses;
    /// limited if the driver would report the exporter's own limit.
    pub fn memory(&self) -> Result<Memory, Missing> {
        self.own_limit?;
        let read = || raw::memory::memory(self.session.nvml(), self.handle);
        let memory = (*self.memory.get_or_init(read))?;
        let is_valid = memory.total > 0 && memory.total >= self.memory_floor;
        if is_valid { Ok(memory) } else { Err(Missing::Invalid) }
    }

    /// Total framebuffer, MiB.
    ///
    /// # Errors
    /// As [`Probe::memory`].
    pub fn memory_total(&self) -> Reading {
        Ok(mebibytes(self.memory()?.total))
    }

    /// Used framebuffer, MiB.
    ///
    /// # Errors
    /// As [`Probe::memory`].
    pub fn memory_used(&self) -> Reading {
        Ok(mebibytes(self.memory()?.used))
    }

    /// Free framebuffer, MiB.
    ///
    /// # Errors
    /// As [`Probe::memory`].
    pub fn memory_free(&self) -> Reading {
        Ok(mebibytes(self.memory()?.free))
    }

    /// Framebuffer reserved by the driver, MiB (`nvmlDeviceGetMemoryInfo_v2`).
    ///
    /// # Errors
    /// As [`Probe::memory`]; unsupported before driver 510.
    pub fn memory_reserved(&self) -> Reading {
        Ok(mebibytes(self.memory()?.reserved.ok_or(Missing::Unsupported)?))
    }

    /// Used framebuffer divided by the unreserved framebuffer, 0 to 1.
    ///
    /// # Errors
    /// As [`Probe::memory`]; invalid if the unreserved framebuffer is 0.
    pub fn memory_used_ratio(&self) -> Reading {
        let memory = self.memory()?;
        let usable = memory.total.saturating_sub(memory.reserved.unwrap_or_default());
        if usable == 0 { Err(Missing::Invalid) } else { Ok(bytes(memory.used) / bytes(usable)) }
    }

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

    /// Total BAR1 memory, bytes (`nvmlDeviceGetBAR1MemoryInfo`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn bar1_total_bytes(&self) -> Reading {
        Ok(bytes(self.bar1()?.total))
    }

    /// Used BAR1 memory, bytes.
    ///
    /// # Errors
    /// As [`Probe::bar1_total_bytes`].
    pub fn bar1_used_bytes(&self) -> Reading {
        Ok(bytes(self.bar1()?.used))
    }

    /// Free BAR1 memory, bytes.
    ///
    /// # Errors
    /// As [`Probe::bar1_total_bytes`].
    pub fn bar1_free_bytes(&self) -> Reading {
        Ok(bytes(self.bar1()?.free))
    }

    /// Total BAR1 memory, MiB (`nvmlDeviceGetBAR1MemoryInfo`).
    ///
    /// # Errors
    /// Returns the NVML error.
    pub fn bar1_total(&self) -> Reading {
        Ok(mebibytes(self.bar1()?.total))
    }

    /// Used BAR1 memory, MiB.
    ///
    /// # Errors
    /// As [`Probe::bar1_total`].
    pub fn bar1_used(&self) -> Reading {
        Ok(mebibytes(self.bar1()?.used))
    }

    /// Free BAR1 memory, MiB.
    ///
    /// # Errors
    /// As [`Probe::bar1_total`].
    pub fn bar1_free(&self) -> Reading {
        Ok(mebibytes(self.bar1()?.free))
    }

    fn bar1(&self) -> Result<BAR1MemoryInfo, Missing> {
        let read = || Ok(self.device.bar1_memory_info()?);
        self.bar1.get_or_init(read).clone()
    }
}
