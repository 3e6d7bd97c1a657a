//! Label naming schemes and their options.

/// Label naming scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Names of the GPU exporter of Alibaba Cloud ACK.
    Ack,
    /// Names of NVIDIA's dcgm-exporter, of one version or of several at once.
    DcgmExporter(Vec<Compat>),
}

/// A range of versions of dcgm-exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compat {
    /// Up to 4.8.2.
    V4_8,
    /// 4.8.3 and 4.8.4.
    V4_8_4,
    /// 4.9 and later.
    V4_9,
}

/// Options of dcgm-exporter for label names and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelOptions {
    /// Omit the host name (`--no-hostname`).
    pub no_hostname: bool,
    /// Use the old names for UUID, pod, namespace and container (`--use-old-namespace`).
    pub old_namespace: bool,
    /// Replace blanks in the model name by hyphens (`--replace-blanks-in-model-name`).
    pub replace_blanks: bool,
}
