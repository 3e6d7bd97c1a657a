//! One GPU, read by its own thread.

use std::sync::Arc;
use std::time::Duration;

use super::cells::{Cell, Cells};
use super::gpm::GpmReader;
use super::gpu_ring::GpuRing;
use super::limits::LimitReader;
use super::part::{PartReader, PartSample, People, Tools};
use super::ring::RingCursor;
use super::signs::{self, SignReader};
use super::texts::Texts;
use crate::host::ProcRoot;
use crate::host::placements::Placements;
use crate::model::{Discards, Gpu, Limits, LinkStates, MigDevice, Missing, Moment, Reading, Signs};
use crate::nvml::Session;
use crate::nvml::probe::{Gpm, Probe};
use crate::nvml::raw::Handle;
use crate::nvml::raw::clocks::clock_event_reasons;
use crate::nvml::raw::fields::Field;
use crate::nvml::raw::samples::{SampleBuffer, gpu_utilization};
use crate::nvml::raw::topology::nvlink_status;
use crate::nvml::raw::utilization::{UtilizationBuffers, process_utilization};
use crate::policy::Tier;
use crate::selection::Selection;

/// What one GPU answered in one cycle.
#[derive(Clone, Debug)]
pub struct DeviceSample {
    /// Which GPU.
    pub gpu: Arc<Gpu>,
    /// Its present handle.
    pub handle: Handle,
    /// What its readings are measured by.
    pub limits: Limits,
    /// When it was asked.
    pub at: Moment,
    /// One cell per row of the catalogue's device slice, in its order; none for what is not chosen.
    pub cells: Vec<Option<Cell>>,
    /// What a GPU with MIG on tells as a whole of what it is divided into, where that is wanted: one
    /// cell per row of the instance slice.
    pub undivided: Option<Vec<Option<Cell>>>,
    /// One text per row of the text slice; none for what is not chosen or known without asking.
    pub texts: Vec<Option<Result<Arc<str>, Missing>>>,
    /// Why its clocks are lower than they could be, while that is counted.
    pub clock_event_reasons: Option<Result<u64, Missing>>,
    /// How it reaches other GPUs, by their index, while that is told.
    pub peers: Vec<(u32, Result<u32, Missing>)>,
    /// The states of its links, while they are told or its health is.
    pub links: Option<Result<LinkStates, Missing>>,
    /// What tells of its health, while that is told.
    pub signs: Option<Signs>,
    /// Energy since the driver was loaded, joules, while it is shared out
    /// (`NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION`).
    pub energy: Option<Reading>,
    /// The GPU as a whole, or its MIG devices while MIG is on.
    pub parts: Vec<PartSample>,
    /// Whether all parts were found.
    pub division: Result<(), Missing>,
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
        let cells = self.cells.iter().chain(self.parts.iter().flat_map(|part| &part.cells));
        let present = cells.flatten().filter(|cell| cell.at == self.at.mono);
        let framebuffers = self.parts.iter().map(|part| part.framebuffer.map(drop));
        let all = present.map(|cell| cell.reading.map(drop)).chain(framebuffers);
        let now = || all.clone();
        let failures = || now().filter_map(Result::err);
        let fatal = |m: &Missing| matches!(m, Missing::Lost | Missing::DriverGone);
        if let Some(missing) = failures().find(fatal) {
            return Err(missing);
        }
        if now().any(|read| read.is_ok()) {
            return Ok(());
        }
        Err(failures().find(|m| *m != Missing::Unsupported).unwrap_or(Missing::Unsupported))
    }
}

/// `NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION`, mJ.
const ENERGY: Field = Field::of(83);

/// What a GPU's thread is asked for.
#[derive(Clone, Debug)]
pub enum Question {
    /// Only move the utilization ring's cursor on.
    Ring(Moment),
    /// Everything that is chosen and due; with the GPUs whose reach may be asked for.
    Sample(Moment, Arc<Selection>, Arc<[(u32, Handle)]>),
}

/// Reads one GPU and remembers what has to outlive a cycle.
pub struct DeviceReader {
    session: Arc<Session>,
    index: u32,
    known: Option<(Arc<Gpu>, Handle)>,
    proc_root: ProcRoot,
    utilization: UtilizationBuffers,
    ring: RingCursor,
    samples: SampleBuffer,
    gpu_ring: GpuRing,
    cells: Cells,
    gpm: GpmReader,
    limits: LimitReader,
    undivided: Cells,
    texts: Texts,
    reach: Reach,
    signs: SignReader,
    parts: Vec<PartReader>,
    mig: Mig,
    placements: Placements,
    discards: Discards,
    down: bool,
}

/// How a GPU reaches others, as it was last told.
#[derive(Default)]
struct Reach {
    at: Option<Duration>,
    peers: Vec<(u32, Handle)>,
    told: Vec<(u32, Result<u32, Missing>)>,
}

/// Whether MIG is on, and whether it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mig {
    Unknown,
    Impossible,
    Off,
    On,
}

impl DeviceReader {
    /// A reader of the GPU at `index`, about which nothing is known yet.
    #[must_use]
    pub fn new(session: Arc<Session>, index: u32, proc_root: ProcRoot) -> Self {
        Self {
            gpm: GpmReader::new(Arc::clone(&session), None),
            session,
            index,
            known: None,
            proc_root,
            utilization: UtilizationBuffers::default(),
            ring: RingCursor::default(),
            samples: SampleBuffer::default(),
            gpu_ring: GpuRing::default(),
            cells: Cells::default(),
            limits: LimitReader::default(),
            undivided: Cells::default(),
            texts: Texts::default(),
            reach: Reach::default(),
            signs: SignReader::default(),
            parts: Vec::new(),
            mig: Mig::Unknown,
            placements: Placements::default(),
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
                let handle = *handle;
                self.read_ring(handle, now);
                self.read_gpu_ring(handle, now);
                None
            }
            (Question::Sample(now, selection, peers), _) => {
                Some(self.sample(now, &selection, &peers))
            }
        }
    }

    fn sample(
        &mut self,
        now: Moment,
        selection: &Selection,
        peers: &[(u32, Handle)],
    ) -> Result<DeviceSample, Missing> {
        let (gpu, handle) = self.identity()?;
        let division = self.divide(handle);
        if selection.wants_processes() {
            self.read_ring(handle, now);
        } else {
            self.ring.fail(Missing::Pending);
        }
        self.gpu_ring.follow(selection.wants_extent());
        self.read_gpu_ring(handle, now);
        self.cells.video_idle(self.ring.video_idle());
        let fields = self.fields(selection, now.mono);
        let ids = self.gpm_metrics(selection);
        let readings = self.gpm.read(handle, &ids, now.mono).map(<[_]>::to_vec);
        let gpm = Gpm { ids: &ids, readings: readings.as_deref().map_err(|missing| *missing) };
        let extent = self.gpu_ring.close();
        let probe = Probe::new(&self.session, handle, &fields).with_gpm(gpm).with_extent(extent);
        self.cells.read(&selection.device, &probe, now.mono);
        let limits = self.limits.read(&probe);
        let energy = selection.wants_energy().then(|| Ok(probe.field(ENERGY)? / 1000.0));
        let clock_event_reasons = (selection.wants_clock_events() || selection.wants_health())
            .then(|| clock_event_reasons(self.session.nvml(), handle));
        let links = self.signs.links(selection, &self.session, handle, now.mono);
        let known = (links.clone(), clock_event_reasons);
        let signs = match known {
            (Some(links), Some(reasons)) if selection.wants_health() => {
                Some(self.signs.signs(&self.session, handle, &probe, links, reasons, now.mono))
            }
            _ => None,
        };
        let undivided = self.read_undivided(handle, now, selection, gpm);
        self.texts.read(&selection.text, &self.session, handle);
        let parts = self.sample_parts(handle, now, selection, gpm);
        let sample = DeviceSample {
            gpu,
            handle,
            limits,
            at: now,
            cells: self.cells.to_vec(),
            undivided,
            texts: self.texts.to_vec(),
            clock_event_reasons,
            peers: self.reach(handle, now, selection, peers),
            links,
            signs,
            energy,
            parts,
            division,
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
        self.mig = Mig::Unknown;
        self.forget();
        Some(handle)
    }

    /// What of the GPU is asked in one batch: what rows need that are due, and what is reckoned with.
    fn fields(&self, selection: &Selection, now: Duration) -> Vec<Field> {
        let mut fields = self.cells.due_fields(&selection.device, now);
        if selection.wants_health() {
            fields.extend(signs::FIELDS);
        }
        fields.extend(selection.wants_energy().then_some(ENERGY));
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    fn forget(&mut self) {
        self.ring = RingCursor::default();
        self.gpu_ring = GpuRing::default();
        self.cells.clear();
        self.undivided.clear();
        self.gpm = GpmReader::new(Arc::clone(&self.session), None);
        self.limits = LimitReader::default();
        self.texts = Texts::default();
        self.signs = SignReader::default();
        self.parts.clear();
    }

    /// Finds out what the GPU is divided into, each cycle anew: instances come and go under us, and
    /// their ids are reused at once.
    ///
    /// # Errors
    /// Some parts could not be found; what they hold is not known.
    fn divide(&mut self, handle: Handle) -> Result<(), Missing> {
        let before = self.mig;
        if before != Mig::Impossible {
            self.mig = match self.session.mig_mode(handle) {
                Ok(true) => Mig::On,
                Ok(false) => Mig::Off,
                Err(Missing::Unsupported) => Mig::Impossible,
                Err(missing) => {
                    self.parts.clear();
                    return Err(missing);
                }
            };
        }
        if self.mig != before && before != Mig::Unknown {
            self.forget();
        }
        if self.mig == Mig::On {
            let known = |uuid: &str| self.parts.iter().find_map(|part| part.mig_device(uuid));
            let (found, complete) = self.session.mig_devices(handle, known);
            self.keep_parts(found);
            complete
        } else {
            if self.parts.is_empty() {
                self.parts.push(PartReader::new(None, handle));
            }
            self.parts.iter_mut().for_each(|part| part.take_up(handle, true));
            Ok(())
        }
    }

    /// Goes on with the readers of the MIG devices that are still there.
    fn keep_parts(&mut self, found: Vec<(MigDevice, Handle)>) {
        let mut before = std::mem::take(&mut self.parts);
        let mut instances = Vec::new();
        for (mig, handle) in found {
            let known = before.iter().position(|part| part.reads(Some(&mig)));
            let first = !instances.contains(&mig.gpu_instance);
            instances.push(mig.gpu_instance);
            let mut part = known.map_or_else(
                || PartReader::new(Some(Arc::new(mig)), handle),
                |at| before.swap_remove(at),
            );
            part.take_up(handle, first);
            self.parts.push(part);
        }
    }

    /// How the GPU reaches the others; asked for now and then, and when there are others than before.
    fn reach(
        &mut self,
        handle: Handle,
        now: Moment,
        selection: &Selection,
        peers: &[(u32, Handle)],
    ) -> Vec<(u32, Result<u32, Missing>)> {
        if !selection.wants_peers() {
            self.reach = Reach::default();
            return Vec::new();
        }
        if Tier::Slow.due(self.reach.at, now.mono) || self.reach.peers != peers {
            let nvml = self.session.nvml();
            let others = peers.iter().filter(|(index, _)| *index != self.index);
            let ask = |(index, peer): &(u32, Handle)| (*index, nvlink_status(nvml, handle, *peer));
            let told = others.map(ask).collect();
            self.reach = Reach { at: Some(now.mono), peers: peers.to_vec(), told };
        }
        self.reach.told.clone()
    }

    /// The metrics of GPM of the GPU as a whole, for one call.
    fn gpm_metrics(&self, selection: &Selection) -> Vec<u32> {
        let mut ids = selection.device.gpm_metrics();
        if self.mig != Mig::On || selection.frame.scope.undivided() {
            ids.extend(selection.instance.gpm_metrics());
        }
        ids
    }

    fn read_undivided(
        &mut self,
        handle: Handle,
        now: Moment,
        selection: &Selection,
        gpm: Gpm<'_>,
    ) -> Option<Vec<Option<Cell>>> {
        if self.mig != Mig::On || !selection.frame.scope.undivided() {
            self.undivided.clear();
            return None;
        }
        let fields = self.undivided.due_fields(&selection.instance, now.mono);
        let probe = Probe::new(&self.session, handle, &fields).with_gpm(gpm);
        self.undivided.read(&selection.instance, &probe, now.mono);
        Some(self.undivided.to_vec())
    }

    fn read_ring(&mut self, handle: Handle, now: Moment) {
        if self.mig == Mig::On {
            // Drivers refuse the question while MIG is on.
            self.ring.fail(Missing::Unsupported);
            return;
        }
        let since = self.ring.last_seen_us(now);
        let nvml = self.session.nvml();
        match process_utilization(nvml, handle, since, &mut self.utilization) {
            Ok(rows) => self.ring.absorb(&rows, now, &mut self.discards),
            Err(missing) => self.ring.fail(missing),
        }
    }

    fn read_gpu_ring(&mut self, handle: Handle, now: Moment) {
        if self.gpu_ring.is_followed() {
            let (nvml, since) = (self.session.nvml(), self.gpu_ring.last_seen_us(now));
            let answer = gpu_utilization(nvml, handle, since, &mut self.samples);
            self.gpu_ring.absorb(answer, now);
        }
    }

    fn sample_parts(
        &mut self,
        gpu: Handle,
        now: Moment,
        selection: &Selection,
        gpm: Gpm<'_>,
    ) -> Vec<PartSample> {
        self.placements.begin(now.mono);
        let window = self.ring.close();
        let window = window.as_ref().map_err(|missing| *missing);
        let mut tools = Tools {
            session: &self.session,
            gpu,
            gpm,
            people: People { root: &self.proc_root, placements: &mut self.placements },
            discards: &mut self.discards,
        };
        let sample = |part: &mut PartReader| part.sample(now, selection, window, &mut tools);
        self.parts.iter_mut().map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Reading;

    fn sample(readings: &[Reading]) -> DeviceSample {
        let at = Moment { mono: Duration::ZERO, wall_us: 0 };
        let gpu = Arc::new(Gpu {
            index: 0,
            minor: None,
            uuid: "GPU-0".into(),
            name: "".into(),
            pci_bus_id: "".into(),
        });
        let cells = readings.iter().map(|r| Some(Cell { reading: *r, at: at.mono })).collect();
        DeviceSample {
            gpu,
            handle: Handle::none(),
            limits: Limits::default(),
            at,
            cells,
            undivided: None,
            texts: Vec::new(),
            clock_event_reasons: None,
            peers: Vec::new(),
            links: None,
            signs: None,
            energy: None,
            parts: Vec::new(),
            division: Ok(()),
            discards: Discards::default(),
        }
    }

    #[test]
    fn a_gpu_is_up_as_long_as_one_reading_works() {
        let failed = Err(Missing::Failed(999));
        assert_eq!(sample(&[failed, Ok(1.0)]).state(), Ok(()));
        assert_eq!(sample(&[failed, Err(Missing::Unsupported)]).state(), Err(Missing::Failed(999)));
        assert_eq!(sample(&[Ok(1.0), Err(Missing::Lost)]).state(), Err(Missing::Lost));
    }
}
