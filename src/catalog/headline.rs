//! Numbers of a GPU in the web UI and `top` that are rows.

/// A number of a GPU in the web UI and `top` that is a row, and its unit there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headline {
    /// GPU utilization, percent.
    Utilization,
    /// Utilization of a GPU instance, ratio 0 to 1.
    InstanceActive,
    /// Power draw, watts.
    Power,
    /// Temperature, °C.
    Temperature,
    /// Clock event reasons, bitmask.
    ClockEvents,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{DEVICE, INSTANCE};

    #[test]
    fn each_headline_is_one_row_of_its_unit() {
        let of = |row: &super::super::Metric<_>| row.headline.map(|headline| (headline, row.unit));
        let device: Vec<_> = DEVICE.iter().filter_map(of).collect();
        let expected = [
            (Headline::Temperature, "C"),
            (Headline::Power, "W"),
            (Headline::Utilization, "%"),
            (Headline::ClockEvents, "bitmask"),
        ];
        assert_eq!(device, expected);
        let instance: Vec<_> = INSTANCE.iter().filter_map(of).collect();
        assert_eq!(instance, [(Headline::InstanceActive, "ratio 0..1")]);
    }
}
