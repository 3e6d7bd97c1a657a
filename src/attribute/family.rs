//! Which family a process is told in, and under whose name.

use std::time::Duration;

use super::holdings::{Holdings, Share};
use super::owner::{Owner, Unresolved};
use crate::model::AllocateMode;
use crate::policy::STRAY_PATIENCE;

/// Where a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `DCGM_CUSTOM_PROCESS_*`, with this mode.
    Process(AllocateMode),
    /// `DCGM_CUSTOM_ILLEGAL_PROCESS_*`: it uses a device that nobody gave it.
    Illegal,
}

/// What is known of who was given what.
#[derive(Clone, Copy, Debug)]
pub enum Allocation<'a> {
    /// Nobody gives GPUs out, or nobody tells.
    Nobody {
        /// There is a cluster all the same: a process waits for its pod.
        cluster: bool,
    },
    /// Whoever is asked has not answered yet.
    Pending,
    /// What the kubelet and the pods say.
    Known(&'a Holdings),
}

impl<'a> Allocation<'a> {
    /// The shares of a device, as far as they are known.
    #[must_use]
    pub fn shares_of(self, device: &str) -> &'a [Share] {
        match self {
            Self::Known(holdings) => holdings.of_device(device),
            Self::Nobody { .. } | Self::Pending => &[],
        }
    }
}

/// The family of a process of `owner` on `device` that was first seen there at `seen`.
///
/// # Errors
/// It is in none yet: its labels would have to change later.
pub fn family(
    owner: &Owner,
    device: &str,
    seen: Duration,
    now: Duration,
    allocation: Allocation<'_>,
) -> Result<Family, Unresolved> {
    let nobody_knows = matches!(allocation, Allocation::Nobody { cluster: false });
    if let (Owner::Unknown(unresolved), false) = (owner, nobody_knows) {
        return Err(*unresolved);
    }
    let holdings = match allocation {
        Allocation::Nobody { .. } => return Ok(Family::Process(AllocateMode::None)),
        Allocation::Pending => return Err(Unresolved::Allocation),
        Allocation::Known(holdings) => holdings,
    };
    match owner {
        // The status of a container that has just started may not name it yet.
        Owner::Stray if now.saturating_sub(seen) < STRAY_PATIENCE => Err(Unresolved::NoPod),
        Owner::Host | Owner::Stray | Owner::Unknown(_) => Ok(Family::Illegal),
        Owner::Container(holder) => match holdings.mode_of(holder, device) {
            Some(mode) => Ok(Family::Process(mode)),
            // Who is given a device is given it before its process starts.
            None if holdings.covers(holder) && holdings.certain_since(seen, device) => {
                Ok(Family::Illegal)
            }
            None => Err(Unresolved::Allocation),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::holdings::Share;
    use crate::attribute::owner::Holder;
    use crate::kube::allocation::Coverage;
    use crate::model::PodRef;
    use std::collections::BTreeSet;

    const GPU: &str = "GPU-0";

    fn holder(pod: &str) -> Holder {
        let pod = PodRef { uid: pod.into(), namespace: "team".into(), name: pod.into() };
        Holder { pod, container: "main".into() }
    }

    fn holdings(as_of: u64, fresh: bool) -> Holdings {
        let share = Share {
            holder: holder("train"),
            device: GPU.into(),
            mode: AllocateMode::Exclusive,
            memory: Some(80.0),
            compute: 0.0,
            replica: "".into(),
            claim: None,
            confirmed: true,
            running: true,
        };
        let none = BTreeSet::new();
        let unlisted = Coverage::AllBut { unlisted: ["unlisted".into()].into(), holders: true };
        Holdings::new([share], none, false, unlisted).as_of(Duration::from_secs(as_of), fresh)
    }

    /// The family of somebody who was first seen at 100 s, at 120 s.
    fn of(owner: &Owner, allocation: Allocation<'_>) -> Result<Family, Unresolved> {
        family(owner, GPU, Duration::from_secs(100), Duration::from_secs(120), allocation)
    }

    #[test]
    fn who_was_given_the_device_is_told_with_its_mode() {
        let given = holdings(0, false);
        let owner = Owner::Container(holder("train"));
        let exclusive = Ok(Family::Process(AllocateMode::Exclusive));
        assert_eq!(of(&owner, Allocation::Known(&given)), exclusive, "however old that is");
    }

    #[test]
    fn who_was_not_given_it_is_illegal_once_that_is_certain() {
        let owner = Owner::Container(holder("intruder"));
        let of = |given: &Holdings| of(&owner, Allocation::Known(given));
        assert_eq!(of(&holdings(100, true)), Ok(Family::Illegal));
        assert_eq!(of(&holdings(99, true)), Err(Unresolved::Allocation), "asked too early");
        assert_eq!(of(&holdings(100, false)), Err(Unresolved::Allocation), "nobody confirms");
        let doubtful = Holdings::new([], [GPU.into()].into(), false, Coverage::default());
        let doubtful = doubtful.as_of(Duration::from_secs(100), true);
        assert_eq!(of(&doubtful), Err(Unresolved::Allocation));
        let unlisted = Owner::Container(holder("unlisted"));
        let of = family(
            &unlisted,
            GPU,
            Duration::from_secs(100),
            Duration::from_secs(120),
            Allocation::Known(&holdings(100, true)),
        );
        assert_eq!(of, Err(Unresolved::Allocation), "the List does not name its pod");
    }

    #[test]
    fn containers_of_a_pod_that_holds_the_device_use_what_their_pod_holds() {
        let holdings = holdings(100, true);
        let init = Owner::Container(Holder { container: "init".into(), ..holder("train") });
        let process = Ok(Family::Process(AllocateMode::Exclusive));
        assert_eq!(of(&init, Allocation::Known(&holdings)), process);
    }

    #[test]
    fn the_host_and_stray_containers_were_given_nothing() {
        let given = holdings(0, false);
        let known = Allocation::Known(&given);
        assert_eq!(of(&Owner::Host, known), Ok(Family::Illegal));
        assert_eq!(of(&Owner::Stray, known), Ok(Family::Illegal));
        let just_now = Duration::from_secs(119);
        let early = family(&Owner::Stray, GPU, just_now, Duration::from_secs(120), known);
        assert_eq!(early, Err(Unresolved::NoPod), "its status may name it in a moment");
    }

    #[test]
    fn where_nobody_gives_gpus_out_nobody_is_illegal() {
        let plain = Ok(Family::Process(AllocateMode::None));
        let unknown = Owner::Unknown(Unresolved::NoPod);
        for owner in [&Owner::Host, &Owner::Stray, &Owner::Container(holder("train"))] {
            assert_eq!(of(owner, Allocation::Nobody { cluster: false }), plain);
            assert_eq!(of(owner, Allocation::Nobody { cluster: true }), plain);
            assert_eq!(of(owner, Allocation::Pending), Err(Unresolved::Allocation));
        }
        assert_eq!(of(&unknown, Allocation::Nobody { cluster: false }), plain);
        let waits = of(&unknown, Allocation::Nobody { cluster: true });
        assert_eq!(waits, Err(Unresolved::NoPod), "it has a pod, and waits for it");
    }
}
