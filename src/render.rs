//! Snapshot → exposition text 0.0.4.
//!
//! DCGM's counters carry no `_total`, which `OpenMetrics` would force on them: a family is declared
//! a counter and its samples are encoded as gauges, which is legal in the older text format.

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
use crate::catalog::own::OWN;
use crate::labels::Labels;
use crate::model::Reading;
use crate::selection::Chosen;
use crate::snapshot::{Entity, Series, Snapshot};
use crate::telemetry;

/// Which families a page has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All.
    Whole,
    /// Those that tell of GPUs and of what happens on them.
    Gpus,
    /// Those that tell of the exporter.
    Own,
}

/// A page.
///
/// # Errors
/// None in practice: writing to a string does not fail.
pub fn page(snapshot: &Arc<Snapshot>, part: Part) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page { snapshot: Arc::clone(snapshot), part }));
    let mut text = String::with_capacity(room(snapshot));
    encode_registry(&mut text, &registry)?;
    Ok(text)
}

/// About how long a page is, in bytes. Growing to that in steps would copy it once more.
fn room(snapshot: &Snapshot) -> usize {
    /// Name, value and punctuation of a sample.
    const SAMPLE: usize = 48;
    /// HELP and TYPE, and the exporter's own series.
    const REST: usize = 32 << 10;
    let (chosen, tables) = (&*snapshot.selection, &snapshot.tables);
    let line = |labels: &Labels| labels.len() + SAMPLE;
    let of = |entities: &[Entity], families: usize| {
        families * entities.iter().map(|entity| line(&entity.labels)).sum::<usize>()
    };
    let users = tables.processes.iter().chain(&tables.illegal).map(|(labels, _)| line(labels));
    let holders = tables.containers.iter().map(|(labels, _)| line(labels));
    REST + of(&tables.devices, chosen.device.families().len())
        + of(&tables.instances, chosen.instance.families().len())
        + chosen.process.families().len() * users.sum::<usize>()
        + chosen.container.families().len() * holders.sum::<usize>()
}

struct Page {
    snapshot: Arc<Snapshot>,
    part: Part,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("part", &self.part).finish_non_exhaustive()
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if self.part != Part::Own {
            gpus(&mut encoder, &self.snapshot)?;
        }
        if self.part != Part::Gpus {
            own(&mut encoder, &self.snapshot)?;
        }
        Ok(())
    }
}

fn gpus(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    let (chosen, tables) = (&*snapshot.selection, &snapshot.tables);
    table(encoder, &chosen.node, &snapshot.nodes)?;
    table(encoder, &chosen.device, &tables.devices)?;
    scattered(encoder, &chosen.event, &tables.events)?;
    table(encoder, &chosen.instance, &tables.instances)?;
    derived(encoder, &chosen.allotted, &tables.allocated)?;
    derived(encoder, &chosen.container, &tables.containers)?;
    derived(encoder, &chosen.process, &tables.processes)?;
    derived(encoder, &chosen.illegal, &tables.illegal)?;
    scattered(encoder, &chosen.account, &tables.accounts)
}

fn own(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> fmt::Result {
    for row in OWN {
        let samples: Vec<(Labels, Reading)> = telemetry::samples(row.series, snapshot)
            .into_iter()
            .map(|(values, value)| {
                let pairs = row.labels.iter().copied().zip(values.iter().map(String::as_str));
                (Labels::of(pairs), Ok(value))
            })
            .collect();
        let samples = samples.iter().map(|(labels, reading)| (labels, *reading));
        family(encoder, row.name, row.kind, row.help, samples)?;
    }
    Ok(())
}

/// The families that are chosen of a slice of the catalogue.
fn table<S>(
    encoder: &mut DescriptorEncoder<'_>,
    chosen: &Chosen<S>,
    entities: &[Entity],
) -> fmt::Result {
    for (position, shown) in chosen.families().iter().enumerate() {
        let samples = column(entities, position);
        family(encoder, &shown.name, shown.kind, &shown.help, samples)?;
    }
    Ok(())
}

/// The families that are chosen of a slice whose families have each their own subjects.
fn scattered<S>(
    encoder: &mut DescriptorEncoder<'_>,
    chosen: &Chosen<S>,
    series: &[Series],
) -> fmt::Result {
    for (position, shown) in chosen.families().iter().enumerate() {
        let samples = series.iter().filter(|series| series.family == position);
        let samples = samples.map(|series| (&series.labels, series.reading));
        family(encoder, &shown.name, shown.kind, &shown.help, samples)?;
    }
    Ok(())
}

/// How a number is made of what is known of a subject.
type Derived<S> = fn(&S) -> Reading;

/// The families that are chosen of a slice of the catalogue whose numbers are made of what is known of a subject.
fn derived<S>(
    encoder: &mut DescriptorEncoder<'_>,
    chosen: &Chosen<Derived<S>>,
    subjects: &[(Labels, S)],
) -> fmt::Result {
    for shown in chosen.families() {
        let read = shown.metric.source;
        let samples = subjects.iter().map(|(labels, subject)| (labels, read(subject)));
        family(encoder, &shown.name, shown.kind, &shown.help, samples)?;
    }
    Ok(())
}

fn column(entities: &[Entity], position: usize) -> impl Iterator<Item = (&Labels, Reading)> {
    entities
        .iter()
        .filter_map(move |entity| Some((&entity.labels, *entity.readings.get(position)?)))
}

/// One family, or nothing where no sample has a number.
fn family<'a>(
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
            number(&mut family, value)?;
        } else {
            number(&mut family.encode_family(&LabelBlock(labels))?, value)?;
        }
    }
    Ok(())
}

/// A whole number is written without a fraction, as the peers do.
#[expect(clippy::cast_possible_truncation, reason = "guarded by the range")]
fn number(encoder: &mut MetricEncoder<'_>, value: f64) -> fmt::Result {
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
    /// A key is written as it is, and what has been written before is one.
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let (text, last) = self.0.written();
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

    /// One sample under these labels, as we write them or as the library does.
    #[derive(Debug)]
    enum One {
        Ours(Labels),
        Theirs(Vec<(String, String)>),
    }

    impl Collector for One {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let mut family = encoder.encode_descriptor("a", "b", None, MetricType::Gauge)?;
            match self {
                Self::Ours(labels) => number(&mut family.encode_family(&LabelBlock(labels))?, 1.0),
                Self::Theirs(labels) => number(&mut family.encode_family(labels)?, 1.0),
            }
        }
    }

    fn page(one: One) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(one));
        let mut page = String::new();
        encode_registry(&mut page, &registry).unwrap();
        page
    }

    proptest! {
        #[test]
        fn labels_are_written_as_the_library_writes_them(
            values in prop::collection::vec("\\PC{0,80}|.{0,90}|[\"\\\\,=a\n]{0,300}", 1..5)
        ) {
            let pairs = ["a", "b_c", "D", "e1", "f"].into_iter().zip(&values);
            let labels = Labels::of(pairs.map(|(key, value)| (key, value.as_str())));
            let pairs = labels.pairs().into_iter().map(|(key, value)| (key.to_owned(), value));
            let theirs = page(One::Theirs(pairs.collect()));
            prop_assert_eq!(page(One::Ours(labels.clone())), theirs);
        }
    }
}
