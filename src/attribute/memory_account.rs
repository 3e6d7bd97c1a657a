//! Values of an allocation, with the driver's account of its container.

use super::AttributionContext;
use crate::model::{
    ContainerAllocation, ContainerIdentity, DeviceAllocation, MemoryAccount, Missing,
};
use crate::nvml::probe::mebibytes;
use crate::sample::partition::PartitionSample;

/// Values of the series of an allocation of a partition. `listed` is the framebuffer of the container's
/// processes in the driver's list, bytes.
pub(super) fn allocation_values(
    context: &AttributionContext<'_>,
    partition: &PartitionSample,
    allocation: &DeviceAllocation,
    listed: impl FnOnce() -> Result<u64, Missing>,
) -> ContainerAllocation {
    let values = allocation.series_values();
    let Some(account) = account_of(context, partition, &allocation.container) else {
        return values;
    };
    let memory = match account.hard_limit {
        Ok(Some(limit)) if allocation.confirmed => Ok(mebibytes(limit)),
        Err(missing) if allocation.confirmed => Err(missing),
        Ok(_) | Err(_) => values.memory,
    };
    let charged = account.charged.map(mebibytes);
    let unlisted = charged.and_then(|charged| Ok(charged - mebibytes(listed()?)));
    ContainerAllocation { memory, charged, unlisted, ..values }
}

/// The account of a container, unless there are several: one of them is of an earlier run.
fn account_of<'a>(
    context: &AttributionContext<'_>,
    partition: &'a PartitionSample,
    container: &ContainerIdentity,
) -> Option<&'a MemoryAccount> {
    let mut own = partition.memory_accounts.iter().filter(|account| {
        let (owner, _) = context.owner_resolver.resolve(&account.location);
        owner.container().is_some_and(|owner| owner.matches(container))
    });
    own.next().filter(|_| own.next().is_none())
}
