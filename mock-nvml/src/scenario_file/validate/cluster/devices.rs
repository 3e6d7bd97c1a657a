//! Allocation of the device plugins' devices to the containers.

use std::ops::Range;

use toml::Spanned;

use crate::{
    cluster::{devices::DevicePlugins, resources::MigStrategy},
    scenario::{
        Gpu,
        cluster::{Container, ContainerKind, OfferedDevice, Pod},
    },
    scenario_file::{
        error::{SpannedError, ValidationResult},
        validate::cluster::pods::ContainerSpans,
    },
    window::Window,
};

/// Sets the devices of all containers, and returns the devices that the plugins offer.
pub(super) fn allocate(
    pods: &mut [Pod],
    spans: &[Vec<ContainerSpans>],
    gpus: &[Gpu],
    strategy: MigStrategy,
) -> ValidationResult<Vec<OfferedDevice>> {
    let mut plugins = DevicePlugins::new(gpus.len(), strategy);
    let containers = || pods.iter().flat_map(|pod| &pod.containers);
    for (container, spans) in containers().zip(spans.iter().flatten()) {
        plugins.register(&container.allocation).map_err(at(&spans.allocation))?;
    }
    let others = spans.iter().flatten().flat_map(further_devices);
    plugins.offer_devices(gpus, containers().map(|container| &container.allocation), others);
    for (pod, spans) in pods.iter_mut().zip(spans) {
        let life = pod.active_lifetime();
        // As at the kubelet, the init containers come first, and the later containers get their devices.
        let is_app = |container: &Container| container.kind == ContainerKind::App;
        let mut order: Vec<_> = pod.containers.iter_mut().zip(spans).collect();
        order.sort_by_key(|(container, _)| is_app(container));
        plugins.begin_pod();
        for (container, spans) in order {
            allocate_to(&mut plugins, container, spans, life)?;
        }
    }
    Ok(plugins.allocatable())
}

fn allocate_to(
    plugins: &mut DevicePlugins,
    container: &mut Container,
    spans: &ContainerSpans,
    life: Window,
) -> ValidationResult<()> {
    let allocated = plugins.allocate(&container.allocation, life);
    container.devices = allocated.map_err(at(&spans.allocation))?;
    for (resource, id) in further_devices(spans) {
        let device = plugins.allocate_by_id(resource, id, life);
        container.devices.push(device.map_err(at(&spans.allocation))?);
    }
    if container.kind == ContainerKind::Init {
        plugins.reuse(&container.devices);
    }
    Ok(())
}

/// The key `devices` of a container: resources and ids.
fn further_devices<'a>(spans: &ContainerSpans<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let by_resource = spans.table.devices.iter().flat_map(Spanned::get_ref);
    by_resource.flat_map(|(resource, ids)| ids.iter().map(|id| (resource.as_str(), id.as_str())))
}

fn at(span: &Range<usize>) -> impl Fn(String) -> SpannedError {
    let span = span.clone();
    move |text| SpannedError::new(span.clone(), text)
}
