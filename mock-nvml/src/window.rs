//! A time window of the world.

/// A range of world time in seconds, without its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    /// Start, included.
    pub(crate) from: f64,
    /// End, excluded; may be infinite.
    pub(crate) to: f64,
}

impl Window {
    pub(crate) const ALWAYS: Self = Self { from: f64::NEG_INFINITY, to: f64::INFINITY };

    pub(crate) fn contains(self, time: f64) -> bool {
        self.from <= time && time < self.to
    }

    /// The part before a time, if there is one.
    pub(crate) fn until(self, end: Option<f64>) -> Self {
        Self { to: end.map_or(self.to, |end| self.to.min(end)), ..self }
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.from < other.to && other.from < self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_includes_its_start_and_excludes_its_end() {
        let window = Window { from: 1.0, to: 2.0 };
        assert!(window.contains(1.0) && !window.contains(2.0));
        assert!(!window.overlaps(Window { from: 2.0, to: 3.0 }));
        assert!(window.overlaps(Window { from: 0.0, to: f64::INFINITY }));
    }
}
