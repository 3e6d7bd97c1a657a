//! Resource claims of devices, shares of devices, and administrative access.

use fastrand::Rng;

use super::super::timeline::{Access, Allocation, Claimed, Container, World};
use super::chance;
use super::sharing::{Slot, allocation};

/// Gives `slot` to `container` by a claim.
pub(super) fn claim(rng: &mut Rng, slot: Slot, total_mib: u32, container: &mut Container) {
    let access = if slot.count > 1 {
        Access::Share(format!("{:08x}-share", rng.u32(..)), total_mib / slot.count)
    } else {
        match rng.u8(0..5) {
            0 => Access::Mps([0, 40][rng.usize(0..2)], total_mib / 2),
            1 => Access::TimeSlicing,
            _ => Access::Whole,
        }
    };
    let held = allocation(container);
    held.shared = access != Access::Whole;
    match access {
        Access::Share(_, mib) => held.memory = f64::from(mib),
        Access::Mps(percent, mib) => {
            (held.memory, held.compute) = (f64::from(mib), f64::from(percent) / 100.0);
        }
        Access::Whole | Access::TimeSlicing | Access::Admin => {}
    }
    // The scheduler creates the claims of an extended resource; the pod refers to none.
    let is_extended = access == Access::Whole && container.claims.is_empty() && chance(rng, 25);
    if is_extended {
        container.requests.push(("nvidia.com/gpu", "1".to_owned()));
    }
    let name = format!("claim-{:08x}", rng.u32(..));
    container.claims.push(Claimed { claim: name, device: slot.device, access });
}

/// Lets the second app container use the device of the first one, too.
pub(super) fn share_claim(containers: &mut [Container]) {
    let [main, second, ..] = containers else { return };
    let ([claimed], [held]) = (main.claims.as_slice(), main.allocations.as_mut_slice()) else {
        return;
    };
    let is_extended = !main.requests.is_empty();
    if is_extended
        || !second.claims.is_empty()
        || matches!(claimed.access, Access::Share(..) | Access::Admin)
    {
        return;
    }
    held.shared = true;
    second.allocations = vec![Allocation { shared: true, ..held.clone() }];
    second.claims = vec![claimed.clone()];
}

/// Gives a container administrative access to some devices.
pub(super) fn administer(rng: &mut Rng, world: &World, container: &mut Container) {
    let name = format!("admin-{:08x}", rng.u32(..));
    for device in world.devices() {
        if chance(rng, 70) {
            let access = Access::Admin;
            container.claims.push(Claimed { claim: name.clone(), device, access });
        }
    }
}
