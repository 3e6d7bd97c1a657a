//! Why data of the driver or of `/proc` is discarded.

/// Why data of the driver or of `/proc` was discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// A PID of 0 or above the kernel's limit.
    Pid,
    /// A second utilization row of one PID in one response.
    Duplicate,
    /// A utilization row stamped at or before the requested time.
    OldStamp,
    /// A utilization row stamped in the future.
    FutureStamp,
    /// A utilization above 100 percent.
    Percentage,
    /// More framebuffer than the GPU has.
    Memory,
    /// A listed process without a `/proc` entry: it has exited, or is in another PID namespace.
    Gone,
    /// A listed process that has exited and is not yet reaped.
    Zombie,
    /// The `/proc` entry of a listed process cannot be read or parsed.
    Unreadable,
    /// Permission to read the `/proc` entry of a listed process is denied (`EACCES`, `EPERM`).
    Denied,
}

impl Discard {
    /// All reasons, in the order of [`Discards`].
    pub const ALL: [Self; 10] = [
        Self::Pid,
        Self::Duplicate,
        Self::OldStamp,
        Self::FutureStamp,
        Self::Percentage,
        Self::Memory,
        Self::Gone,
        Self::Zombie,
        Self::Unreadable,
        Self::Denied,
    ];

    /// Value of the `reason` label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Duplicate => "duplicate",
            Self::OldStamp => "old_stamp",
            Self::FutureStamp => "future_stamp",
            Self::Percentage => "percentage",
            Self::Memory => "memory",
            Self::Gone => "gone",
            Self::Zombie => "zombie",
            Self::Unreadable => "unreadable",
            Self::Denied => "denied",
        }
    }
}

/// Number of rows discarded since the session began, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discards([u64; Discard::ALL.len()]);

impl Discards {
    /// Counts one discarded row.
    pub fn count(&mut self, reason: Discard) {
        if let Some(n) = self.0.get_mut(reason as usize) {
            *n += 1;
        }
    }

    /// All reasons with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        Discard::ALL.into_iter().zip(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discards_are_counted_by_reason() {
        for reason in Discard::ALL {
            let mut discards = Discards::default();
            discards.count(reason);
            let counted: Vec<_> = discards.iter().filter(|(_, n)| *n == 1).collect();
            assert_eq!(counted, [(reason, 1)]);
        }
    }
}
