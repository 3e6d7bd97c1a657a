//! Renders a snapshot as Prometheus text format 0.0.4.
//!
//! Names of DCGM counters have no `_total` suffix, which `OpenMetrics` requires: such a family is
//! declared a counter and its samples are encoded as gauges, which is valid in the older text
//! format.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, LabelKeyEncoder, LabelSetEncoder,
    MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::catalog::Kind;
use crate::catalog::exporter_metrics::EXPORTER_METRICS;
use crate::labels::Labels;
use crate::model::Reading;
use crate::selection::SelectedFamilies;
use crate::snapshot::{Entity, Series, Snapshot};
use crate::telemetry;

/// The families that an exposition contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageScope {
    /// All families.
    All,
    /// Families of GPUs, processes and containers.
    Gpus,
    /// Families of the exporter itself (`nvml_exporter_*`, `process_*`).
    Exporter,
}

/// Renders the exposition.
///
/// # Errors
/// Returns an error of the encoder; none in practice, since writing to a string does not fail.
pub fn exposition(snapshot: &Arc<Snapshot>, scope: PageScope) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry
        .register_collector(Box::new(SnapshotCollector { snapshot: Arc::clone(snapshot), scope }));
    let mut text = String::with_capacity(estimated_length(snapshot));
    encode_registry(&mut text, &registry)?;
    Ok(text)
}

/// Estimated length of the exposition in bytes, to allocate it once.
fn estimated_length(snapshot: &Snapshot) -> usize {
    /// Name, value and punctuation of a sample.
    const SAMPLE: usize = 48;
    /// HELP and TYPE lines, and the series of the exporter itself.
    const REST: usize = 32 << 10;
    let (selected, tables) = (&*snapshot.selection, &snapshot.tables);
    let line = |labels: &Labels| labels.len() + SAMPLE;
    let of = |entities: &[Entity], families: usize| {
        families * entities.iter().map(|entity| line(&entity.labels)).sum::<usize>()
    };
    let processes = tables.processes.iter().chain(&tables.illegal).map(|(labels, _)| line(labels));
    let containers = tables.containers.iter().map(|(labels, _)| line(labels));
    REST + of(&tables.devices, selected.device.families().len())
        + of(&tables.instances, selected.instance.families().len())
        + selected.process.families().len() * processes.sum::<usize>()
        + selected.container.families().len() * containers.sum::<usize>()
}

struct SnapshotCollector {
    snapshot: Arc<Snapshot>,
    scope: PageScope,
}

impl fmt::Debug for SnapshotCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotCollector").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Collector for SnapshotCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if self.scope != PageScope::Exporter {
            encode_gpus(&mut encoder, &self.snapshot)?;
        }
        if self.scope != PageScope::Gpus {
            encode_exporter(&mut encoder, &self.snapshot)?;
        }
        Ok(())
    }
}

fn encode_gpus(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let (selected, tables) = (&*snapshot.selection, &snapshot.tables);
    encode_table(encoder, &selected.node, &snapshot.nodes)?;
    encode_table(encoder, &selected.device, &tables.devices)?;
    encode_series(encoder, &selected.event, &tables.events)?;
    encode_table(encoder, &selected.instance, &tables.instances)?;
    encode_derived(encoder, &selected.allocated_fraction, &tables.allocated)?;
    encode_derived(encoder, &selected.container, &tables.containers)?;
    encode_derived(encoder, &selected.memory_account, &tables.containers)?;
    encode_table(encoder, &selected.activity, &tables.activity)?;
    encode_derived(encoder, &selected.process, &tables.processes)?;
    encode_derived(encoder, &selected.illegal, &tables.illegal)?;
    encode_series(encoder, &selected.accumulated, &tables.accumulated)
}

fn encode_exporter(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    for row in EXPORTER_METRICS {
        let samples: Vec<(Labels, Reading)> = telemetry::samples(row.id, snapshot)
            .into_iter()
            .map(|(values, value)| {
                let pairs = row.labels.iter().copied().zip(values.iter().map(String::as_str));
                let node = snapshot.identity.exporter_label.as_ref();
                let node = node.map(|(name, value)| (*name, value.as_str()));
                (Labels::from_pairs(pairs.chain(node)), Ok(value))
            })
            .collect();
        let samples = samples.iter().map(|(labels, reading)| (labels, *reading));
        encode_samples(encoder, row.name, row.kind, row.help, samples)?;
    }
    Ok(())
}

/// Encodes the selected families of a catalog slice from the readings of its entities.
fn encode_table<S>(
    encoder: &mut DescriptorEncoder<'_>,
    selected: &SelectedFamilies<S>,
    entities: &[Entity],
) -> fmt::Result {
    for (position, family) in selected.families().iter().enumerate() {
        let samples = column(entities, position);
        encode_samples(encoder, &family.name, family.kind, &family.help, samples)?;
    }
    Ok(())
}

/// Encodes the selected families of a catalog slice in which each family has its own entities.
fn encode_series<S>(
    encoder: &mut DescriptorEncoder<'_>,
    selected: &SelectedFamilies<S>,
    series: &[Series],
) -> fmt::Result {
    for (position, family) in selected.families().iter().enumerate() {
        let samples = series.iter().filter(|series| series.family == position);
        let samples = samples.map(|series| (&series.labels, series.reading));
        encode_samples(encoder, &family.name, family.kind, &family.help, samples)?;
    }
    Ok(())
}

/// Computes a reading from a subject.
type Derived<S> = fn(&S) -> Reading;

/// Encodes the selected families of a catalog slice; the readings are computed from a subject.
fn encode_derived<S>(
    encoder: &mut DescriptorEncoder<'_>,
    selected: &SelectedFamilies<Derived<S>>,
    subjects: &[(Labels, S)],
) -> fmt::Result {
    for family in selected.families() {
        let read = family.metric.source;
        let samples = subjects.iter().map(|(labels, subject)| (labels, read(subject)));
        encode_samples(encoder, &family.name, family.kind, &family.help, samples)?;
    }
    Ok(())
}

fn column(entities: &[Entity], position: usize) -> impl Iterator<Item = (&Labels, Reading)> {
    entities
        .iter()
        .filter_map(move |entity| Some((&entity.labels, *entity.readings.get(position)?)))
}

/// Encodes one family; nothing if no reading is `Ok`.
fn encode_samples<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    kind: Kind,
    help: &str,
    samples: impl Iterator<Item = (&'a Labels, Reading)>,
) -> fmt::Result {
    let mut samples =
        samples.filter_map(|(labels, reading)| Some((labels, reading.ok()?))).peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let kind = match kind {
        Kind::Gauge => MetricType::Gauge,
        Kind::Counter => MetricType::Counter,
    };
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in samples {
        if labels.is_empty() {
            encode_number(&mut family, value)?;
        } else {
            encode_number(&mut family.encode_family(&LabelBlock(labels))?, value)?;
        }
    }
    Ok(())
}

/// Encodes integers without a fraction, as other exporters do.
#[expect(clippy::cast_possible_truncation, reason = "guarded by the range")]
fn encode_number(encoder: &mut MetricEncoder<'_>, value: f64) -> fmt::Result {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        encoder.encode_gauge(&(value as i64))
    } else {
        encoder.encode_gauge(&value)
    }
}

#[derive(Debug)]
struct LabelBlock<'a>(&'a Labels);

impl EncodeLabelSet for LabelBlock<'_> {
    /// The encoder does not escape keys, so the pre-rendered label text is passed as one key.
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let (text, last) = self.0.encoded();
        let mut label = encoder.encode_label();
        let mut key: LabelKeyEncoder<'_> = label.encode_label_key()?;
        fmt::Write::write_str(&mut key, text)?;
        let mut value = key.encode_label_value()?;
        last.encode(&mut value)?;
        value.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One sample with labels encoded by the exporter or by prometheus-client.
    #[derive(Debug)]
    enum OneSample {
        Exporter(Labels),
        Library(Vec<(String, String)>),
    }

    impl Collector for OneSample {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let mut family = encoder.encode_descriptor("a", "b", None, MetricType::Gauge)?;
            match self {
                Self::Exporter(labels) => {
                    encode_number(&mut family.encode_family(&LabelBlock(labels))?, 1.0)
                }
                Self::Library(labels) => encode_number(&mut family.encode_family(labels)?, 1.0),
            }
        }
    }

    fn render_sample(sample: OneSample) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sample));
        let mut text = String::new();
        encode_registry(&mut text, &registry).unwrap();
        text
    }

    proptest! {
        #[test]
        fn labels_are_encoded_as_by_prometheus_client(
            values in prop::collection::vec("\\PC{0,80}|.{0,90}|[\"\\\\,=a\n]{0,300}", 1..5)
        ) {
            let pairs = ["a", "b_c", "D", "e1", "f"].into_iter().zip(&values);
            let labels = Labels::from_pairs(pairs.map(|(key, value)| (key, value.as_str())));
            let pairs = labels.pairs().into_iter().map(|(key, value)| (key.to_owned(), value));
            let expected = render_sample(OneSample::Library(pairs.collect()));
            prop_assert_eq!(render_sample(OneSample::Exporter(labels.clone())), expected);
        }
    }
}
