//! Whether NVML is initialised, and which life of the driver it is.

use crate::{
    code::{Answer, Code},
    scenario::Window,
};

/// The clients' session with the driver.
#[derive(Debug)]
pub(crate) struct Session {
    /// How many `nvmlInit` lack their `nvmlShutdown`.
    opened: u32,
    /// How often the first of them was called.
    serial: u32,
    /// Whether the driver was reloaded under the open session.
    stale: bool,
    /// How often the driver has been reloaded.
    generation: u32,
    /// Whether no driver is loaded now.
    unloaded: bool,
    /// World time at which the driver was loaded.
    up_since: f64,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            opened: 0,
            serial: 0,
            stale: false,
            generation: 0,
            unloaded: false,
            up_since: f64::NEG_INFINITY,
        }
    }
}

impl Session {
    pub(crate) fn init(&mut self) -> Answer<()> {
        if self.unloaded {
            return Err(Code::DRIVER_NOT_LOADED);
        }
        if self.stale {
            self.opened = 0;
            self.stale = false;
        }
        if self.opened == 0 {
            self.serial = self.serial.saturating_add(1);
        }
        self.opened = self.opened.saturating_add(1);
        Ok(())
    }

    pub(crate) fn shutdown(&mut self) {
        self.opened = self.opened.saturating_sub(1);
        self.stale &= self.opened > 0;
    }

    /// Refuses a call when there is no session or no driver.
    pub(crate) fn check(&self) -> Answer<()> {
        if self.opened == 0 {
            Err(Code::UNINITIALIZED)
        } else if self.unloaded {
            Err(Code::DRIVER_NOT_LOADED)
        } else if self.stale {
            Err(Code::UNINITIALIZED)
        } else {
            Ok(())
        }
    }

    /// Which session it is: each begins when NVML is initialised anew.
    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }

    /// How often the driver has been reloaded.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// World time at which the driver was loaded.
    pub(crate) fn up_since(&self) -> f64 {
        self.up_since
    }

    /// Goes from world time `from` to `to`. If the driver went away on the way or is still away,
    /// tells the time from which everything begins anew.
    pub(crate) fn advance(&mut self, reloads: &[Window], from: f64, to: f64) -> Option<f64> {
        let away = reloads.iter().any(|window| window.contains(to));
        let passed = reloads.iter().filter(|window| from < window.from && window.from <= to);
        let latest = passed.map(|window| window.to.min(to)).reduce(f64::max);
        if latest.is_some() || (away && !self.unloaded) {
            self.generation = self.generation.saturating_add(1);
            self.stale = self.opened > 0;
        }
        let back = (self.unloaded && !away).then_some(to);
        self.unloaded = away;
        let since = if away {
            Some(to)
        } else {
            latest.or(back.map(|back| came_back(reloads, from, back)))
        };
        if let Some(since) = since {
            self.up_since = since;
        }
        since
    }
}

/// When the driver came back between two moments: at the end of the reload it was in.
fn came_back(reloads: &[Window], from: f64, to: f64) -> f64 {
    let ends = reloads.iter().map(|window| window.to);
    ends.filter(|&end| from < end && end <= to).reduce(f64::max).unwrap_or(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELOADS: &[Window] = &[Window { from: 10.0, to: 20.0 }];

    fn at(session: &mut Session, from: f64, to: f64) -> Option<f64> {
        session.advance(RELOADS, from, to)
    }

    #[test]
    fn shutdowns_are_counted_and_one_too_many_is_no_error() {
        let mut session = Session::default();
        assert_eq!(session.check(), Err(Code::UNINITIALIZED));
        session.shutdown();
        assert_eq!((session.init(), session.init()), (Ok(()), Ok(())));
        session.shutdown();
        assert_eq!(session.check(), Ok(()));
        session.shutdown();
        assert_eq!(session.check(), Err(Code::UNINITIALIZED));
    }

    #[test]
    fn a_reload_ends_the_session() {
        let mut session = Session::default();
        session.init().unwrap();
        assert_eq!(at(&mut session, 0.0, 9.0), None);
        assert_eq!(at(&mut session, 9.0, 12.0), Some(12.0));
        assert_eq!(session.check(), Err(Code::DRIVER_NOT_LOADED));
        assert_eq!(session.init(), Err(Code::DRIVER_NOT_LOADED));
        assert_eq!(at(&mut session, 12.0, 25.0), Some(20.0));
        assert_eq!((session.check(), session.generation()), (Err(Code::UNINITIALIZED), 1));
        assert_eq!((session.init(), session.check()), (Ok(()), Ok(())));
        session.shutdown();
        assert_eq!(session.check(), Err(Code::UNINITIALIZED));
    }

    #[test]
    fn a_reload_between_two_calls_is_noticed() {
        let mut session = Session::default();
        session.init().unwrap();
        assert_eq!(at(&mut session, 5.0, 50.0), Some(20.0));
        assert_eq!((session.check(), session.generation()), (Err(Code::UNINITIALIZED), 1));
        assert_eq!(at(&mut session, 50.0, 60.0), None);
    }
}
