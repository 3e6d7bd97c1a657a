//! The catalogue of metrics: the only place where a series is named.
//!
//! A new series is one row. HELP, TYPE, the order of the exposition, the batch of NVML field ids,
//! the table of `docs/metrics.md` and the contract tests are derived from these slices. [`exporter_metrics`] has
//! the rows of the exporter's own series.

pub mod alias;
pub mod exporter_metrics;
pub mod headline;
pub mod health;
pub mod health_text;
pub mod preset;
pub mod refused;
pub mod unit;
pub mod xid;

mod event_source;
mod events;
mod metric;
mod rows;
mod source;
mod table;

pub use self::event_source::{EventInput, EventSample, EventSource, GpuEventInputs};
pub use self::metric::{Kind, Metric};
pub use self::rows::{
    ACCUMULATED, ACTIVITY, ALLOCATED_FRACTION, CONTAINER, DEVICE, EVENT, ILLEGAL, INFO_LABELS,
    INSTANCE, MEMORY_ACCOUNT, NODE, PROCESS,
};
pub use self::source::{
    AccumulatedMetric, AllocatedFractionSource, ContainerSource, DeviceSource, InfoLabelSource,
    NodeSource, ProcessSource,
};
pub use self::table::{CatalogRow, find, nearest, rows};
