//! Power and temperature limits of a board.

use std::time::Duration;

use nvml_wrapper::enum_wrappers::device::TemperatureThreshold;

use crate::model::{Limits, Missing, Reading};
use crate::nvml::probe::Probe;
use crate::policy::Tier;

/// The limits that were read so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitReader {
    limits: Limits,
    /// When the power limit was read last (monotonic): it may be changed at any time.
    power_read_at: Option<Duration>,
}

impl LimitReader {
    /// Reads the power limit if it is due at `now` (monotonic), and others that are not known yet.
    pub fn read(&mut self, probe: &Probe<'_>, now: Duration) -> Limits {
        let limits = &mut self.limits;
        if Tier::Slow.due(self.power_read_at, now) {
            limits.power = probe.power_limit_enforced();
            self.power_read_at = Some(now);
        }
        read_once(&mut limits.temperature, || {
            probe.temperature_threshold(TemperatureThreshold::Slowdown)
        });
        *limits
    }
}

/// Reads a value unless it is known or unsupported.
fn read_once(known: &mut Reading, read: impl FnOnce() -> Reading) {
    if !matches!(known, Ok(_) | Err(Missing::Unsupported)) {
        *known = read();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_read_until_it_is_known() {
        let mut known = Err(Missing::Pending);
        read_once(&mut known, || Err(Missing::Lost));
        assert_eq!(known, Err(Missing::Lost));
        read_once(&mut known, || Ok(700.0));
        read_once(&mut known, || Ok(1.0));
        assert_eq!(known, Ok(700.0));
        let mut never = Err(Missing::Unsupported);
        read_once(&mut never, || Ok(1.0));
        assert_eq!(never, Err(Missing::Unsupported));
    }
}
