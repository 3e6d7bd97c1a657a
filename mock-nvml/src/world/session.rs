//! NVML initialisation and driver reloads.

use crate::{
    return_code::{NvmlResult, ReturnCode},
    window::Window,
};

/// The session of the client process with the driver.
#[derive(Debug)]
pub(crate) struct Session {
    /// Number of `nvmlInit` without `nvmlShutdown`.
    opened: u32,
    /// Number of sessions opened so far.
    serial: u32,
    /// Whether the driver was reloaded during the open session.
    stale: bool,
    /// Number of driver reloads.
    generation: u32,
    /// Whether the driver is currently unloaded.
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
    pub(crate) fn init(&mut self) -> NvmlResult<()> {
        if self.unloaded {
            return Err(ReturnCode::DRIVER_NOT_LOADED);
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

    /// Checks that there is a session and a driver.
    ///
    /// # Errors
    /// `UNINITIALIZED` without a session, `DRIVER_NOT_LOADED` without a driver.
    pub(crate) fn check(&self) -> NvmlResult<()> {
        if self.opened == 0 {
            Err(ReturnCode::UNINITIALIZED)
        } else if self.unloaded {
            Err(ReturnCode::DRIVER_NOT_LOADED)
        } else if self.stale {
            Err(ReturnCode::UNINITIALIZED)
        } else {
            Ok(())
        }
    }

    /// The number of the session; it increases with each initialisation.
    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }

    /// Number of driver reloads.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// World time at which the driver was loaded.
    pub(crate) fn up_since(&self) -> f64 {
        self.up_since
    }

    /// Advances from world time `from` to `to`. If the driver was reloaded in between or is
    /// unloaded, returns the time from which counters start again.
    pub(crate) fn advance(&mut self, reloads: &[Window], from: f64, to: f64) -> Option<f64> {
        let unloaded = reloads.iter().any(|window| window.contains(to));
        let started = reloads.iter().filter(|window| from < window.from && window.from <= to);
        let latest = started.map(|window| window.to.min(to)).reduce(f64::max);
        if latest.is_some() || (unloaded && !self.unloaded) {
            self.generation = self.generation.saturating_add(1);
            self.stale = self.opened > 0;
        }
        let loaded = (self.unloaded && !unloaded).then_some(to);
        self.unloaded = unloaded;
        let since = if unloaded {
            Some(to)
        } else {
            latest.or(loaded.map(|to| load_time(reloads, from, to)))
        };
        if let Some(since) = since {
            self.up_since = since;
        }
        since
    }
}

/// When the driver was loaded between two times: at the end of the last reload.
fn load_time(reloads: &[Window], from: f64, to: f64) -> f64 {
    let ends = reloads.iter().map(|window| window.to);
    ends.filter(|&end| from < end && end <= to).reduce(f64::max).unwrap_or(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELOADS: &[Window] = &[Window { from: 10.0, to: 20.0 }];

    fn advance(session: &mut Session, from: f64, to: f64) -> Option<f64> {
        session.advance(RELOADS, from, to)
    }

    #[test]
    fn inits_are_counted_and_an_extra_shutdown_is_no_error() {
        let mut session = Session::default();
        assert_eq!(session.check(), Err(ReturnCode::UNINITIALIZED));
        session.shutdown();
        assert_eq!((session.init(), session.init()), (Ok(()), Ok(())));
        session.shutdown();
        assert_eq!(session.check(), Ok(()));
        session.shutdown();
        assert_eq!(session.check(), Err(ReturnCode::UNINITIALIZED));
    }

    #[test]
    fn reload_ends_the_session() {
        let mut session = Session::default();
        session.init().unwrap();
        assert_eq!(advance(&mut session, 0.0, 9.0), None);
        assert_eq!(advance(&mut session, 9.0, 12.0), Some(12.0));
        assert_eq!(session.check(), Err(ReturnCode::DRIVER_NOT_LOADED));
        assert_eq!(session.init(), Err(ReturnCode::DRIVER_NOT_LOADED));
        assert_eq!(advance(&mut session, 12.0, 25.0), Some(20.0));
        assert_eq!((session.check(), session.generation()), (Err(ReturnCode::UNINITIALIZED), 1));
        assert_eq!((session.init(), session.check()), (Ok(()), Ok(())));
        session.shutdown();
        assert_eq!(session.check(), Err(ReturnCode::UNINITIALIZED));
    }

    #[test]
    fn reload_between_two_calls_is_detected() {
        let mut session = Session::default();
        session.init().unwrap();
        assert_eq!(advance(&mut session, 5.0, 50.0), Some(20.0));
        assert_eq!((session.check(), session.generation()), (Err(ReturnCode::UNINITIALIZED), 1));
        assert_eq!(advance(&mut session, 50.0, 60.0), None);
    }
}
