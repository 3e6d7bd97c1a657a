//! The simulated node. Its state is a function of its scenario and of time.
//!
//! One lock guards the stored state (session, handles, accumulators). It is held only while
//! computing, never while a call sleeps or a file is read: a hung GPU must not block calls to other
//! GPUs.

pub(crate) mod board;
mod event_calls;
pub(crate) mod events;
pub(crate) mod gpm;
mod gpm_calls;
mod gpu_states;
pub(crate) mod handles;
mod load;
mod mig_calls;
mod mig_support;
mod physics;
pub(crate) mod sample_ring;
mod session;
pub(crate) mod state;
mod thermal_state;
mod throttle_times;
pub(crate) mod traffic;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    call_counter::CallCounter,
    clock::{self, Now},
    fault::{self, Effect},
    numeric::clamp_u32,
    procfs::ProcTree,
    recording::Recording,
    return_code::{NvmlResult, ReturnCode},
    scenario::Scenario,
    scenario_file::source::{self, ScenarioFile, Source},
    stderr::log_error,
    world::{
        board::Board,
        mig_support::check_supported,
        state::{DeviceLookup, State},
    },
};

/// Interval between two updates of the scenario and of the proc tree, in real seconds.
const UPDATE_INTERVAL: f64 = 0.005;
/// How often a hung call checks whether the fault is still in effect.
const HANG_POLL: Duration = Duration::from_millis(20);

/// The node that this library simulates.
#[derive(Debug)]
pub(crate) struct World {
    state: Mutex<State>,
    watcher: Mutex<ScenarioWatcher>,
    /// The directory of the mock environment, if the library was loaded from one.
    env_dir: Option<PathBuf>,
    /// Whether the servers of the scenario's cluster have not been started yet.
    serve_pending: AtomicBool,
    calls: CallCounter,
    /// Whether the scenario is a recording.
    plays: AtomicBool,
}

/// Scenario file and proc tree, updated outside the state's lock.
#[derive(Debug)]
struct ScenarioWatcher {
    watch: ScenarioFile,
    tree: Option<ProcTree>,
    /// Real time of the last update, in seconds.
    updated: f64,
}

impl World {
    /// The world of a scenario, for a library file in `dir`.
    ///
    /// # Errors
    /// If the scenario cannot be read or is invalid.
    pub(crate) fn open(source: Source, dir: Option<&Path>) -> Result<Self, source::Error> {
        let (watch, scenario) = ScenarioFile::open(source)?;
        let tree = dir.and_then(ProcTree::open_existing);
        let world = Self {
            env_dir: dir.filter(|_| tree.is_some()).map(Path::to_owned),
            serve_pending: AtomicBool::new(scenario.cluster.is_some()),
            plays: AtomicBool::new(scenario.recording.is_some()),
            state: Mutex::new(State::new(scenario)),
            watcher: Mutex::new(ScenarioWatcher { watch, tree, updated: f64::NEG_INFINITY }),
            calls: CallCounter::from_env(),
        };
        world.update();
        Ok(world)
    }

    /// The directory of the mock environment, if the scenario has a cluster with servers that have not been
    /// started; `None` from the next call on.
    pub(crate) fn take_pending_cluster(&self) -> Option<&Path> {
        let env_dir = self.env_dir.as_deref()?;
        let pending = self.serve_pending.load(Ordering::Relaxed)
            && self.serve_pending.swap(false, Ordering::Relaxed);
        pending.then_some(env_dir)
    }

    /// The current scenario and time.
    pub(crate) fn scenario_and_time(&self) -> (Arc<Scenario>, Now) {
        self.update();
        let (state, now) = self.lock_state();
        (Arc::clone(&state.scenario), now)
    }

    /// What the driver returns, if the scenario is a recording.
    pub(crate) fn recording(&self) -> Option<Arc<Recording>> {
        if !self.plays.load(Ordering::Relaxed) {
            return None;
        }
        self.update();
        self.lock_state().0.scenario.recording.clone()
    }

    /// Whether the scenario is read from a file, which can change.
    pub(crate) fn watches_file(&self) -> bool {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner).watch.is_file()
    }

    /// `nvmlInit…`.
    pub(crate) fn init(&self, function: &str) -> NvmlResult<()> {
        self.call(function, |_| Ok(None), |state, _| state.session.init())
    }

    /// `nvmlShutdown`.
    pub(crate) fn shutdown(&self, function: &str) -> NvmlResult<()> {
        let shutdown = |state: &mut State, _| {
            state.session.shutdown();
            Ok(())
        };
        self.call(function, |_| Ok(None), shutdown)
    }

    /// A call that requires no session.
    pub(crate) fn without_session<T>(
        &self,
        function: &str,
        read: impl FnOnce(&Scenario) -> NvmlResult<T>,
    ) -> NvmlResult<T> {
        self.call(function, |_| Ok(None), |state, _| read(&state.scenario))
    }

    /// A call that requires a session and takes no device.
    pub(crate) fn with_session<T>(
        &self,
        function: &str,
        read: impl FnOnce(&Scenario, Now) -> NvmlResult<T>,
    ) -> NvmlResult<T> {
        let target = |state: &State| state.session.check().map(|()| None);
        self.call(function, target, |state, now| read(&state.scenario, now))
    }

    /// Number of GPUs, including lost ones.
    pub(crate) fn gpu_count(&self, function: &str) -> NvmlResult<u32> {
        self.with_session(function, |scenario, _| Ok(clamp_u32(scenario.gpus.len())))
    }

    /// The handle of a device, by index, UUID, PCI bus id or serial number.
    pub(crate) fn handle(&self, function: &str, named: DeviceLookup) -> NvmlResult<usize> {
        let target = |state: &State| {
            state.session.check()?;
            state.resolve(named).map(|(gpu, _)| Some(gpu))
        };
        self.call(function, target, |state, _| {
            let entry = state.find(named)?;
            Ok(state.handles.get(entry))
        })
    }

    /// A call with the handle of a GPU or, if the function supports it, of a MIG device. `read`
    /// runs without the lock, as it may take long.
    pub(crate) fn board<T>(
        &self,
        function: &str,
        handle: usize,
        read: impl FnOnce(&Board) -> NvmlResult<T>,
    ) -> NvmlResult<T> {
        self.any_board(function, handle, |board| {
            check_supported(function, board)?;
            read(board)
        })
    }

    /// A call with any handle. `read` runs without the lock, as it may take long.
    pub(crate) fn any_board<T>(
        &self,
        function: &str,
        handle: usize,
        read: impl FnOnce(&Board) -> NvmlResult<T>,
    ) -> NvmlResult<T> {
        let target = |state: &State| state.handle_entry(handle).map(|entry| Some(entry.gpu));
        read(&self.call(function, target, |state, now| state.board(handle, now))?)
    }

    /// Counts a request to a server of the cluster.
    pub(crate) fn count_request(&self, request: &str) {
        self.calls.count(request);
    }

    /// Runs a call: `target` resolves its GPU, the scenario's faults are applied, then `act` runs
    /// with the state locked.
    fn call<T>(
        &self,
        function: &str,
        target: impl Fn(&State) -> NvmlResult<Option<usize>>,
        act: impl FnOnce(&mut State, Now) -> NvmlResult<T>,
    ) -> NvmlResult<T> {
        self.calls.count(function);
        self.call_uncounted(function, false, target, act)
    }

    /// As [`Self::call`], uncounted; with `delayed`, the call is not delayed again.
    fn call_uncounted<T>(
        &self,
        function: &str,
        mut delayed: bool,
        target: impl Fn(&State) -> NvmlResult<Option<usize>>,
        act: impl FnOnce(&mut State, Now) -> NvmlResult<T>,
    ) -> NvmlResult<T> {
        loop {
            self.update();
            let wait = {
                let (mut state, now) = self.lock_state();
                let gpu = target(&state)?;
                match fault::effective_fault(
                    &state.scenario.faults,
                    function,
                    gpu,
                    now.world,
                    delayed,
                ) {
                    None => return act(&mut state, now),
                    Some(Effect::Code(code)) => return Err(code),
                    Some(Effect::Missing) => return Err(ReturnCode::FUNCTION_NOT_FOUND),
                    Some(Effect::Substitute(substitute)) => {
                        fault::set_substitute(Some(substitute));
                        return act(&mut state, now);
                    }
                    Some(Effect::Hang) => HANG_POLL,
                    Some(Effect::Delay(time)) => {
                        delayed = true;
                        time
                    }
                }
            };
            clock::sleep(wait);
        }
    }

    /// Locks the state and advances it to the current time.
    fn lock_state(&self) -> (MutexGuard<'_, State>, Now) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now(state.scenario.held_at);
        state.advance(now.world);
        (state, now)
    }

    /// Reads a changed scenario and updates the proc tree. One caller at a time does this; others
    /// do not wait for it.
    fn update(&self) {
        let mut watcher = match self.watcher.try_lock() {
            Ok(watcher) => watcher,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let real = clock::now(None).real;
        if real - watcher.updated < UPDATE_INTERVAL {
            return;
        }
        watcher.updated = real;
        self.calls.write();
        match watcher.watch.reload_if_changed() {
            Some(Ok(scenario)) => {
                self.plays.store(scenario.recording.is_some(), Ordering::Relaxed);
                self.serve_pending.fetch_or(scenario.cluster.is_some(), Ordering::Relaxed);
                self.lock_state().0.replace_scenario(scenario);
            }
            Some(Err(error)) => log_error(&error),
            None => {}
        }
        if let Some(tree) = &mut watcher.tree {
            let (state, now) = self.lock_state();
            let scenario = Arc::clone(&state.scenario);
            drop(state);
            if let Err(error) = tree.sync(&scenario, now)
                && tree.exists()
            {
                log_error(&error);
            }
        }
    }
}
