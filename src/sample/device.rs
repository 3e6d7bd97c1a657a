//! One GPU, read by its own thread.

use std::sync::Arc;
use std::time::Duration;

use super::processes::{ProcessTable, RunningLists};
use super::ring::RingCursor;
use crate::catalog::{self, DEVICE};
use crate::host::ProcRoot;
use crate::model::{Discards, Gpu, Missing, Moment, ProcessSample, Reading};
use crate::nvml::Session;
use crate::nvml::probe::Probe;
use crate::nvml::raw::{self, Buffers, Handle, ProcessList};

/// One reading and when it was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// The number, or why there is none.
    pub reading: Reading,
    /// Monotonic time at which the device was asked.
    pub at: Duration,
}

/// What one GPU answered in one cycle.
#[derive(Clone, Debug)]
pub struct DeviceSample {
    /// Which GPU.
    pub gpu: Arc<Gpu>,
    /// When it was asked.
    pub at: Moment,
    /// One cell per row of [`DEVICE`], in its order.
    pub cells: Vec<Cell>,
    /// Its processes, unless a list failed.
    pub processes: Result<Vec<ProcessSample>, Missing>,
    /// Rows thrown away since the session began.
    pub discards: Discards,
}

impl DeviceSample {
    /// What is wrong with the GPU as a whole: it is lost, or nothing of it can be read.
    ///
    /// # Errors
    /// The reason.
    pub fn state(&self) -> Result<(), Missing> {
        // Slow cells of earlier cycles say nothing about the present.
        let now = || self.cells.iter().filter(|cell| cell.at == self.at.mono);
        let failures = || now().filter_map(|cell| cell.reading.err());
        let fatal = |m: &Missing| matches!(m, Missing::Lost | Missing::DriverGone);
        if let Some(missing) = failures().find(fatal) {
            return Err(missing);
        }
        if now().any(|cell| cell.reading.is_ok()) {
            return Ok(());
        }
        Err(failures().find(|m| *m != Missing::Unsupported).unwrap_or(Missing::Unsupported))
    }
}

/// What a GPU's thread is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// Only move the utilization ring's cursor on.
    Ring(Moment),
    /// Everything that is due.
    Sample(Moment),
}

/// Reads one GPU and remembers what has to outlive a cycle.
pub struct DeviceReader {
    session: Arc<Session>,
    index: u32,
    known: Option<(Arc<Gpu>, Handle)>,
    proc_root: ProcRoot,
    fields: Vec<u32>,
    buffers: Buffers,
    ring: RingCursor,
    processes: ProcessTable,
    cells: Vec<Option<Cell>>,
    discards: Discards,
    down: bool,
}

impl DeviceReader {
    /// A reader of the GPU at `index`, about which nothing is known yet.
    #[must_use]
    pub fn new(session: Arc<Session>, index: u32, proc_root: ProcRoot) -> Self {
        Self {
            session,
            index,
            known: None,
            proc_root,
            fields: catalog::field_ids(),
            buffers: Buffers::default(),
            ring: RingCursor::default(),
            processes: ProcessTable::default(),
            cells: vec![None; DEVICE.len()],
            discards: Discards::default(),
            down: false,
        }
    }

    /// Answers one question; a ring read has no answer of its own.
    ///
    /// # Errors
    /// The GPU cannot be identified.
    pub fn answer(&mut self, question: Question) -> Option<Result<DeviceSample, Missing>> {
        match (question, &self.known) {
            (Question::Ring(_), None) => None,
            (Question::Ring(now), Some((_, handle))) => {
                self.read_ring(*handle, now);
                None
            }
            (Question::Sample(now), _) => Some(self.sample(now)),
        }
    }

    fn sample(&mut self, now: Moment) -> Result<DeviceSample, Missing> {
        let (gpu, handle) = self.identity()?;
        self.read_ring(handle, now);
        let total = self.read_cells(handle, now.mono);
        let processes = self.read_processes(handle, total);
        let sample = DeviceSample {
            gpu,
            at: now,
            cells: self.cells.iter().flatten().copied().collect(),
            processes,
            discards: self.discards,
        };
        self.down = sample.state().is_err();
        Ok(sample)
    }

    fn identity(&mut self) -> Result<(Arc<Gpu>, Handle), Missing> {
        let (gpu, handle) = match self.known.clone() {
            Some((gpu, handle)) if self.down => {
                let handle = self.find_again(&gpu).unwrap_or(handle);
                (gpu, handle)
            }
            Some(known) => known,
            None => {
                let (gpu, handle) = self.session.identify(self.index)?;
                (Arc::new(gpu), handle)
            }
        };
        self.known = Some((Arc::clone(&gpu), handle));
        Ok((gpu, handle))
    }

    /// A GPU that was reset answers to a new handle only, and nothing that was remembered of it
    /// holds. Without a new one the old one is asked on, to hear what is wrong.
    fn find_again(&mut self, gpu: &Gpu) -> Option<Handle> {
        let handle = self.session.handle(gpu).ok()?;
        self.ring = RingCursor::default();
        self.processes = ProcessTable::default();
        self.cells.fill(None);
        Some(handle)
    }

    fn read_ring(&mut self, handle: Handle, now: Moment) {
        let since = self.ring.last_seen_us(now);
        let nvml = self.session.nvml();
        match raw::process_utilization(nvml, handle, since, &mut self.buffers) {
            Ok(rows) => self.ring.absorb(&rows, now, &mut self.discards),
            Err(missing) => self.ring.fail(missing),
        }
    }

    /// Reads every row that is due; returns the framebuffer's size in bytes.
    fn read_cells(&mut self, handle: Handle, now: Duration) -> Option<u64> {
        let probe = Probe::new(&self.session, handle, &self.fields);
        for (metric, cell) in DEVICE.iter().zip(&mut self.cells) {
            // A failed reading is asked for again at once; only an answer waits for its tier.
            let last = cell.filter(|cell| cell.reading.is_ok()).map(|cell| cell.at);
            if metric.tier.due(last, now) {
                let reading = metric.read(&probe).and_then(finite);
                *cell = Some(Cell { reading, at: now });
            }
        }
        probe.memory().ok().map(|memory| memory.total)
    }

    fn read_processes(
        &mut self,
        handle: Handle,
        total: Option<u64>,
    ) -> Result<Vec<ProcessSample>, Missing> {
        let nvml = self.session.nvml();
        let mut list = |which| raw::running_processes(nvml, handle, which, &mut self.buffers);
        let lists = RunningLists {
            compute: list(ProcessList::Compute),
            graphics: list(ProcessList::Graphics),
            mps: list(ProcessList::Mps),
        };
        let window = self.ring.close();
        self.processes.merge(
            lists,
            window.as_ref().map_err(|missing| *missing),
            total,
            |pid| self.proc_root.identify(pid),
            &mut self.discards,
        )
    }
}

fn finite(value: f64) -> Reading {
    if value.is_finite() { Ok(value) } else { Err(Missing::Invalid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(readings: &[Reading]) -> DeviceSample {
        let at = Moment { mono: Duration::ZERO, wall_us: 0 };
        let gpu = Arc::new(Gpu {
            index: 0,
            minor: None,
            uuid: "GPU-0".into(),
            name: "".into(),
            pci_bus_id: "".into(),
        });
        let cells = readings.iter().map(|r| Cell { reading: *r, at: at.mono }).collect();
        DeviceSample { gpu, at, cells, processes: Ok(Vec::new()), discards: Discards::default() }
    }

    #[test]
    fn a_gpu_is_up_as_long_as_one_reading_works() {
        let failed = Err(Missing::Failed(999));
        assert_eq!(sample(&[failed, Ok(1.0)]).state(), Ok(()));
        assert_eq!(sample(&[failed, Err(Missing::Unsupported)]).state(), Err(Missing::Failed(999)));
        assert_eq!(sample(&[Ok(1.0), Err(Missing::Lost)]).state(), Err(Missing::Lost));
    }
}
