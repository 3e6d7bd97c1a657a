//! What a board's readings are measured by, asked for once.

use nvml_wrapper::enum_wrappers::device::TemperatureThreshold;

use crate::model::{Limits, Missing, Reading};
use crate::nvml::probe::Probe;

/// Limits as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitReader(Limits);

impl LimitReader {
    /// Asks for every limit that is not known yet.
    pub fn read(&mut self, probe: &Probe<'_>) -> Limits {
        let limits = &mut self.0;
        once(&mut limits.power, || probe.power_limit_max());
        once(&mut limits.temperature, || {
            probe.temperature_threshold(TemperatureThreshold::Slowdown)
        });
        *limits
    }
}

/// What the board does not have it will not get.
fn once(known: &mut Reading, ask: impl FnOnce() -> Reading) {
    if !matches!(known, Ok(_) | Err(Missing::Unsupported)) {
        *known = ask();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_asked_for_until_it_is_known() {
        let mut known = Err(Missing::Pending);
        once(&mut known, || Err(Missing::Lost));
        assert_eq!(known, Err(Missing::Lost));
        once(&mut known, || Ok(700.0));
        once(&mut known, || Ok(1.0));
        assert_eq!(known, Ok(700.0));
        let mut never = Err(Missing::Unsupported);
        once(&mut never, || Ok(1.0));
        assert_eq!(never, Err(Missing::Unsupported));
    }
}
