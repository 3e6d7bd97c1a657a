//! Whether the driver limits the memory of the exporter itself.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::cached::{Cached, is_fresh_slow};
use crate::host::ProcRoot;
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
        let is_limited = |path: &Path| {
            let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Missing::Invalid)?;
            let account = cgroup_memory(session.newer(), gpu, &path)?;
            Ok(account.is_some_and(|account| account.is_limited()))
        };
        self.0.get_or_read(now, is_fresh_slow, || match root.own_cgroups() {
            Ok(cgroups) => evidence(cgroups.iter().map(|path| is_limited(path))),
            Err(_) => evidence_without_cgroups(is_limited(Path::new("/"))),
        })
    }
}

/// What it means that a cgroup of the exporter or above it is not visible, by the answer for any path.
fn evidence_without_cgroups(answer: Result<bool, Missing>) -> Result<(), Missing> {
    match answer {
        // The GPU has no limits of cgroups.
        Err(Missing::Unsupported) => Ok(()),
        Err(missing @ (Missing::Lost | Missing::DriverGone)) => Err(missing),
        Ok(_) | Err(_) => Err(Missing::Limited),
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
        let limited = Err(Missing::Limited);
        assert_eq!(evidence_without_cgroups(Ok(false)), limited, "of another cgroup");
        assert_eq!(evidence_without_cgroups(Err(Missing::Failed(17))), limited);
        assert_eq!(evidence_without_cgroups(Err(Missing::Unsupported)), Ok(()));
        assert_eq!(evidence_without_cgroups(Err(Missing::Lost)), Err(Missing::Lost));
    }
}
