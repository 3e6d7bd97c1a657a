//! Whether the driver limits the memory of the exporter itself.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::cached::{Cached, is_fresh_slow};
use crate::host::ProcRoot;
use crate::host::own_cgroup::own_cgroups;
use crate::model::Missing;
use crate::nvml::Session;
use crate::nvml::raw::Handle;
use crate::nvml::raw::memory_limits::cgroup_memory;

/// Whether the memory that the driver reports to the exporter is that of the GPU, read slowly.
///
/// With a limit of its cgroup, or of one above it, it is that of its partition. If that cannot be found out,
/// there is no evidence that it is the GPU's.
#[derive(Default)]
pub(super) struct OwnLimit(Cached<Result<(), Missing>>);

impl OwnLimit {
    /// Reads the limits if that is due at `now` (monotonic).
    ///
    /// # Errors
    /// Limited, or the GPU or the driver is lost.
    pub(super) fn read(
        &mut self,
        session: &Session,
        gpu: Handle,
        root: &ProcRoot,
        now: Duration,
    ) -> Result<(), Missing> {
        if !session.newer().limits_memory() {
            return Ok(());
        }
        self.0.get_or_read(now, is_fresh_slow, || {
            let cgroups = own_cgroups(root).map_err(|_| Missing::Limited)?;
            evidence(cgroups.iter().map(|path| {
                let path =
                    CString::new(path.as_os_str().as_bytes()).map_err(|_| Missing::Invalid)?;
                let account = cgroup_memory(session.newer(), gpu, &path)?;
                Ok(account.is_some_and(|account| account.is_limited()))
            }))
        })
    }
}

/// What the limits of the cgroups mean for the memory that is reported.
fn evidence(limits: impl Iterator<Item = Result<bool, Missing>>) -> Result<(), Missing> {
    for limited in limits {
        match limited {
            Ok(false) => {}
            // The GPU has no limits of cgroups.
            Err(Missing::Unsupported) => return Ok(()),
            Err(missing @ (Missing::Lost | Missing::DriverGone)) => return Err(missing),
            Ok(true) | Err(_) => return Err(Missing::Limited),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_that_of_the_gpu_only_if_no_cgroup_is_limited() {
        let of = |limits: &[Result<bool, Missing>]| evidence(limits.iter().copied());
        assert_eq!(of(&[Ok(false), Ok(false)]), Ok(()));
        assert_eq!(of(&[Ok(false), Ok(true)]), Err(Missing::Limited));
        assert_eq!(of(&[Ok(false), Err(Missing::Failed(17))]), Err(Missing::Limited));
        assert_eq!(of(&[Err(Missing::Unsupported)]), Ok(()));
        assert_eq!(of(&[Err(Missing::Lost)]), Err(Missing::Lost));
        assert_eq!(of(&[]), Ok(()), "no cgroup v2, which the limits need");
    }
}
