//! Activity of the SM pipes of a process.

/// Activity of the parts of an SM while the process keeps it busy, each a fraction from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pipes {
    /// Resident warps as a fraction of the maximum.
    pub(crate) occupancy: f64,
    /// Tensor cores.
    pub(crate) tensor: f64,
    /// 64-bit floating point.
    pub(crate) fp64: f64,
    /// 32-bit floating point.
    pub(crate) fp32: f64,
    /// 16-bit floating point.
    pub(crate) fp16: f64,
    /// Integers.
    pub(crate) integer: f64,
}

impl Default for Pipes {
    fn default() -> Self {
        Self { occupancy: 0.5, tensor: 0.3, fp64: 0.0, fp32: 0.2, fp16: 0.05, integer: 0.1 }
    }
}
