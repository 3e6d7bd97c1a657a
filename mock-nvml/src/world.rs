//! The machine: a node whose state is a function of its scenario and of time.
//!
//! One lock guards the little that is remembered (sessions, handles, what accumulates). It is held
//! for reckoning only, never while a call waits or a file is read: a GPU that hangs must not keep
//! others from answering.

mod board;
mod events;
mod gpm;
mod handles;
pub(crate) mod load;
mod mig;
mod physics;
mod session;
mod state;
mod tracks;
mod traffic;
mod violations;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub(crate) use self::board::{
    Board, Direction, FieldValue, LinkError, List, Memory, ProcessRow, SpareRows,
};
use self::events::Registration;
pub(crate) use self::gpm::{Metric, text as metric_text};
use self::state::State;
pub(crate) use self::{board::Seat, handles::Part, state::Named};
pub(crate) use self::{
    events::{Event, supported},
    traffic::lane_speed,
};
use crate::{
    calls::Calls,
    clock::{self, Now},
    cluster,
    code::{Answer, Code},
    fault::{self, Effect},
    number::clamp_u32,
    scenario::{Scenario, Watch},
    stage,
};

/// How often the scenario's file and the proc tree are looked after, in real seconds.
const LOOK: f64 = 0.005;
/// How often a hung call looks whether it may go on.
const HANG_POLL: Duration = Duration::from_millis(20);
/// How often a call that waits for an event looks for one.
const EVENT_POLL: Duration = Duration::from_millis(50);

/// The node that this library simulates.
#[derive(Debug)]
pub(crate) struct World {
    state: Mutex<State>,
    follower: Mutex<Follower>,
    /// The stage, if the library runs from one.
    home: Option<PathBuf>,
    /// Whether a cluster has to be served, and nobody has begun to.
    unserved: AtomicBool,
    calls: Calls,
}

/// What is looked after outside of the state's lock.
#[derive(Debug)]
struct Follower {
    watch: Watch,
    tree: Option<stage::Tree>,
    looked: f64,
}

impl World {
    /// The world of a library whose file stands in `home`.
    ///
    /// # Errors
    /// What is wrong with its scenario.
    pub(crate) fn open(home: Option<&Path>) -> Result<Self, crate::scenario::Error> {
        let (watch, scenario) = Watch::begin(stage::source(home)?)?;
        let tree = home.and_then(stage::Tree::beside);
        let world = Self {
            home: home.filter(|_| tree.is_some()).map(Path::to_owned),
            unserved: AtomicBool::new(scenario.cluster.is_some()),
            state: Mutex::new(State::new(scenario)),
            follower: Mutex::new(Follower { watch, tree, looked: f64::NEG_INFINITY }),
            calls: Calls::of_environment(),
        };
        world.follow();
        Ok(world)
    }

    /// Begins to serve the cluster of a stage, once a scenario has one.
    pub(crate) fn serve(&'static self) {
        static BEGUN: AtomicBool = AtomicBool::new(false);
        if let Some(home) = &self.home
            && self.unserved.load(Ordering::Relaxed)
            && self.unserved.swap(false, Ordering::Relaxed)
            && !BEGUN.swap(true, Ordering::Relaxed)
        {
            cluster::begin(self, home.clone());
        }
    }

    /// The scenario in force, and the present.
    pub(crate) fn scene(&self) -> (Arc<Scenario>, Now) {
        self.follow();
        let (state, now) = self.present();
        (Arc::clone(&state.scenario), now)
    }

    /// Whether the scenario can change.
    pub(crate) fn follows_file(&self) -> bool {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner).watch.follows_file()
    }

    /// `nvmlInit…`.
    pub(crate) fn init(&self, function: &str) -> Answer<()> {
        self.enter(function, |_| Ok(None), |state, _| state.session.init())
    }

    /// `nvmlShutdown`.
    pub(crate) fn shutdown(&self, function: &str) -> Answer<()> {
        let done = |state: &mut State, _| {
            state.session.shutdown();
            Ok(())
        };
        self.enter(function, |_| Ok(None), done)
    }

    /// A call that needs no session.
    pub(crate) fn always<T>(
        &self,
        function: &str,
        read: impl FnOnce(&Scenario) -> Answer<T>,
    ) -> Answer<T> {
        self.enter(function, |_| Ok(None), |state, _| read(&state.scenario))
    }

    /// A call about the node.
    pub(crate) fn node<T>(
        &self,
        function: &str,
        read: impl FnOnce(&Scenario, Now) -> Answer<T>,
    ) -> Answer<T> {
        let target = |state: &State| state.session.check().map(|()| None);
        self.enter(function, target, |state, now| read(&state.scenario, now))
    }

    /// Number of GPUs, lost ones too.
    pub(crate) fn count(&self, function: &str) -> Answer<u32> {
        self.node(function, |scenario, _| Ok(clamp_u32(scenario.gpus.len())))
    }

    /// A handle of the GPU that is so named.
    pub(crate) fn handle(&self, function: &str, named: Named) -> Answer<usize> {
        let target = |state: &State| {
            state.session.check()?;
            state.named(named).map(|(gpu, _)| Some(gpu))
        };
        self.enter(function, target, |state, _| {
            let held = state.find(named)?;
            Ok(state.handles.get(held))
        })
    }

    /// A call with a handle of a GPU or, where the function takes such, a MIG device. `read` runs without the lock, as it may be long.
    pub(crate) fn board<T>(
        &self,
        function: &str,
        handle: usize,
        read: impl FnOnce(&Board) -> Answer<T>,
    ) -> Answer<T> {
        self.part(function, handle, |board| {
            mig::allows(function, board)?;
            read(board)
        })
    }

    /// A new set of events.
    pub(crate) fn create_set(&self, function: &str) -> Answer<usize> {
        let target = |state: &State| state.session.check().map(|()| None);
        self.enter(function, target, |state, _| Ok(state.events.create(state.session.serial())))
    }

    /// The end of a set of events.
    pub(crate) fn free_set(&self, function: &str, set: usize) -> Answer<()> {
        let target = |state: &State| state.session.check().map(|()| None);
        self.enter(function, target, |state, _| state.events.free(set, state.session.serial()))
    }

    /// Has a set hear of a GPU's events of some types from now on.
    pub(crate) fn register(
        &self,
        function: &str,
        handle: usize,
        types: u64,
        set: usize,
    ) -> Answer<()> {
        let target = |state: &State| state.held_by(handle).map(Some);
        self.enter(function, target, |state, now| {
            let gpu = state.held_by(handle)?;
            let model = state.scenario.gpus.get(gpu).ok_or(Code::GPU_IS_LOST)?.model;
            if types & !supported(model) != 0 {
                return Err(Code::NOT_SUPPORTED);
            }
            let serial = state.session.serial();
            state.events.register(
                set,
                serial,
                Registration { gpu, handle, types, since: now.world },
            )
        })
    }

    /// Waits for the next event of a set.
    ///
    /// # Errors
    /// `TIMEOUT` if none has come in that time.
    pub(crate) fn wait(&self, function: &str, set: usize, timeout: Duration) -> Answer<Event> {
        let target = |state: &State| state.session.check().map(|()| None);
        let next = |state: &mut State, now: Now| {
            state.events.next(set, state.session.serial(), &state.scenario, now.world)
        };
        self.calls.count(function);
        let deadline = clock::now(None).real + timeout.as_secs_f64();
        let mut delayed = false;
        loop {
            if let Some(event) = self.enter_again(function, delayed, target, next)? {
                return Ok(event);
            }
            delayed = true;
            let left = deadline - clock::now(None).real;
            if left <= 0.0 {
                return Err(Code::TIMEOUT);
            }
            clock::pause(EVENT_POLL.min(Duration::try_from_secs_f64(left).unwrap_or(EVENT_POLL)));
        }
    }

    /// Answers a call: whose GPU it is about, then what the scenario's faults do to it, then `act`.
    fn enter<T>(
        &self,
        function: &str,
        target: impl Fn(&State) -> Answer<Option<usize>>,
        act: impl FnOnce(&mut State, Now) -> Answer<T>,
    ) -> Answer<T> {
        self.calls.count(function);
        self.enter_again(function, false, target, act)
    }

    /// The same; a call that has been `delayed` is not delayed again.
    fn enter_again<T>(
        &self,
        function: &str,
        mut delayed: bool,
        target: impl Fn(&State) -> Answer<Option<usize>>,
        act: impl FnOnce(&mut State, Now) -> Answer<T>,
    ) -> Answer<T> {
        loop {
            self.follow();
            let wait = {
                let (mut state, now) = self.present();
                let gpu = target(&state)?;
                match fault::verdict(&state.scenario.faults, function, gpu, now.world, delayed) {
                    None => return act(&mut state, now),
                    Some(Effect::Code(code)) => return Err(code),
                    Some(Effect::Missing) => return Err(Code::FUNCTION_NOT_FOUND),
                    Some(Effect::Ones) => {
                        fault::set_ones(true);
                        return act(&mut state, now);
                    }
                    Some(Effect::Hang) => HANG_POLL,
                    Some(Effect::Delay(time)) => {
                        delayed = true;
                        time
                    }
                }
            };
            clock::pause(wait);
        }
    }

    /// The state, brought to the present.
    fn present(&self) -> (MutexGuard<'_, State>, Now) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now(state.scenario.hold);
        state.advance(now.world);
        (state, now)
    }

    /// Re-reads a changed scenario and keeps the proc tree in step. One caller at a time does it,
    /// and no other waits for that.
    fn follow(&self) {
        let mut follower = match self.follower.try_lock() {
            Ok(follower) => follower,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let real = clock::now(None).real;
        if real - follower.looked < LOOK {
            return;
        }
        follower.looked = real;
        self.calls.write();
        match follower.watch.look() {
            Some(Ok(scenario)) => {
                self.unserved.fetch_or(scenario.cluster.is_some(), Ordering::Relaxed);
                self.present().0.adopt(scenario);
            }
            Some(Err(error)) => complain(&error),
            None => {}
        }
        if let Some(tree) = &mut follower.tree {
            let (state, now) = self.present();
            let scenario = Arc::clone(&state.scenario);
            drop(state);
            if let Err(error) = tree.sync(&scenario, now) {
                complain(&error);
            }
        }
    }
}

/// Says what a client cannot be told through a return code.
#[expect(clippy::print_stderr, reason = "a library without a log has nowhere else to say it")]
pub(crate) fn complain(error: &dyn std::error::Error) {
    eprintln!("mock-nvml: {error}");
}
