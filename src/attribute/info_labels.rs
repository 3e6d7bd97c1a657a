//! Labels of the series of a GPU that a counters file requests: texts and numbers.

use std::borrow::Cow;
use std::sync::Arc;

use super::current_sample::CurrentSample;
use super::device::DeviceAttribution;
use super::series_target::InfoLabels;
use crate::catalog::{DeviceSource, EventSource, GpuEventInputs, InfoLabelSource};
use crate::model::Reading;
use crate::sample::device::DeviceSample;
use crate::sample::partition::PartitionSample;
use crate::sample::reading_cache::CachedReading;
use crate::selection::{SelectedFamilies, SelectedFamily};

impl DeviceAttribution<'_> {
    /// Labels of all series of a GPU.
    pub(super) fn gpu_labels(
        &self,
        current: &CurrentSample<'_>,
        inputs: &GpuEventInputs<'_>,
    ) -> InfoLabels {
        let selection = self.context.selection;
        let mut labels = self.texts(current.sample);
        labels.extend(numbers(current, &current.sample.readings, &selection.device));
        let of_event = |row: &SelectedFamily<EventSource>| row.metric.samples(inputs).pop();
        let events = selection.event.labels().iter();
        labels.extend(events.filter_map(|row| label(row, of_event(row)?.reading)));
        let nodes = selection.node.labels().iter();
        labels.extend(nodes.filter_map(|row| label(row, (row.metric.source)(self.node))));
        if !selection.instance.labels().is_empty() {
            let whole = current.sample.partitions.iter().find(|partition| partition.mig.is_none());
            let readings = whole.map(|partition| &partition.readings);
            let readings = readings.or(current.sample.mig_parent_readings.as_ref());
            let readings = readings.map_or(&[][..], Vec::as_slice);
            labels.extend(numbers(current, readings, &selection.instance));
        }
        labels.sort();
        labels
    }

    /// Labels of all series of a partition of a GPU with these labels.
    pub(super) fn partition_labels<'l>(
        &self,
        current: &CurrentSample<'_>,
        partition: &PartitionSample,
        of_gpu: &'l InfoLabels,
    ) -> Cow<'l, InfoLabels> {
        let rows = &self.context.selection.instance;
        let Some(mig) = partition.mig.as_deref().filter(|_| !rows.labels().is_empty()) else {
            return Cow::Borrowed(of_gpu);
        };
        let is_same = |other: &&PartitionSample| {
            let other_mig = other.mig.as_deref().map(|mig| mig.gpu_instance);
            other.reports_instance && other_mig == Some(mig.gpu_instance)
        };
        let instance = current.sample.partitions.iter().find(is_same);
        let readings = instance.map_or(&[][..], |instance| &instance.readings);
        let is_of_instance =
            |name: &Arc<str>| rows.labels().iter().any(|row| Arc::ptr_eq(&row.name, name));
        let mut labels: InfoLabels =
            of_gpu.iter().filter(|(name, _)| !is_of_instance(name)).cloned().collect();
        labels.extend(numbers(current, readings, rows));
        labels.sort();
        Cow::Owned(labels)
    }

    /// The texts of a GPU that are selected and not empty.
    fn texts(&self, sample: &DeviceSample) -> InfoLabels {
        let text = |row: &SelectedFamily<InfoLabelSource>| -> Option<Arc<str>> {
            match row.metric.source {
                InfoLabelSource::Driver(of) => Some(of(self.driver).into()),
                InfoLabelSource::Gpu(of) => Some(of(&sample.gpu).into()),
                InfoLabelSource::Read(_) => sample.info_labels.get(row.row)?.clone()?.ok(),
            }
        };
        let rows = self.context.selection.info_labels.labels().iter();
        let labels = rows.filter_map(|row| Some((Arc::clone(&row.name), text(row)?)));
        labels.filter(|(_, text)| !text.is_empty()).collect()
    }
}

/// The numbers of a device that are selected as labels.
fn numbers(
    current: &CurrentSample<'_>,
    cached: &[Option<CachedReading>],
    selected: &SelectedFamilies<DeviceSource>,
) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
    let readings = current.readings_of(cached, selected.labels());
    selected.labels().iter().zip(readings).filter_map(|(row, reading)| label(row, reading))
}

/// A number as a label, written as in the exposition.
fn label<S>(row: &SelectedFamily<S>, reading: Reading) -> Option<(Arc<str>, Arc<str>)> {
    Some((Arc::clone(&row.name), reading.ok()?.to_string().into()))
}
