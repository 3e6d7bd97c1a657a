//! Runs a world: lets the time pass, passes what the sources return to the exporter, and checks every
//! exposition.

use std::collections::BTreeMap;

use super::api_object;
use super::exporter::{Exporter, INTERVAL};
use super::generator::generate;
use super::laws::{Reference, Violation};
use super::node::Node;
use super::series::Received;
use super::timeline::{Ms, World};

/// The step of the virtual time.
const STEP: Ms = 500;
const LIST_INTERVAL: Ms = 10_000;
const LIST_PAUSE: Ms = 1_000;
const LOG_INTERVAL: Ms = 30_000;
const BACKOFF_MAX: Ms = 10_000;

/// The result of a world.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    /// Number of expositions.
    pub(crate) states: u64,
    /// Number of checked statements by kind.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// The first violation of each kind.
    pub(crate) violations: Vec<Violation>,
    /// The world, and what happened until the first violation.
    pub(crate) history: Vec<String>,
}

/// An exporter with the clients of its sources.
struct Run<'a> {
    world: &'a World,
    exporter: Exporter,
    received: Received,
    connected: bool,
    next_connect: Ms,
    next_list: Ms,
    last_list: Ms,
    next_logs: Ms,
    failures: u32,
    /// When events of each pod arrive.
    changes: Vec<Vec<Ms>>,
}

/// Runs the world of a seed.
pub(crate) fn run(seed: u64) -> Outcome {
    let world = generate(seed);
    let mut outcome = Outcome { seed, history: describe(seed, &world), ..Outcome::default() };
    let mut reference = Reference::default();
    let mut starts = world.starts.iter().copied().peekable();
    let mut current: Option<Run<'_>> = None;
    let interval = u64::try_from(INTERVAL.as_millis()).unwrap();
    for at in (0..world.length).step_by(usize::try_from(STEP).unwrap()) {
        if starts.next_if(|start| *start <= at).is_some() {
            outcome.history.push(format!("{at}: the exporter starts"));
            current = Some(Run::start(&world, at, seed));
        }
        let Some(run) = &mut current else { continue };
        run.receive(at, &mut outcome.history);
        if !(at - run.received.started).is_multiple_of(interval) {
            continue;
        }
        run.cycle(at);
        let text = run.exporter.scrape();
        outcome.states += 1;
        for violation in reference.check(&world, &run.received, &text) {
            outcome.add(at, violation, run, &text);
        }
    }
    outcome.counts = reference.counts;
    outcome
}

impl Outcome {
    fn add(&mut self, at: Ms, violation: Violation, run: &Run<'_>, text: &str) {
        if self.violations.iter().any(|earlier| earlier.kind == violation.kind) {
            return;
        }
        if self.violations.is_empty() {
            self.history.push(format!("{at}: {:?}", run.received));
            let own = run.exporter.scrape_own();
            let shown = |line: &&str| line.contains("unresolved") || line.contains("problem");
            self.history.extend(own.lines().filter(shown).map(str::to_owned));
            let shown = |line: &&str| !line.starts_with('#') && line.contains("CUSTOM");
            self.history.extend(text.lines().filter(shown).map(str::to_owned));
        }
        self.history.push(format!("{at}: {}: {}", violation.kind, violation.detail));
        self.violations.push(violation);
    }
}

impl<'a> Run<'a> {
    fn start(world: &'a World, at: Ms, seed: u64) -> Self {
        Self {
            world,
            exporter: Exporter::start(world, at),
            received: Received {
                at,
                started: at,
                read: vec![Vec::new(); world.gpus.len()],
                pods: None,
                list: None,
            },
            connected: false,
            next_connect: at + seed % 4 * 500,
            next_list: at,
            last_list: at,
            next_logs: at,
            failures: 0,
            changes: world.pods.iter().map(api_object::changes).collect(),
        }
    }

    /// Lets the sources respond.
    fn receive(&mut self, at: Ms, history: &mut Vec<String>) {
        self.received.at = at;
        let node = Node { world: self.world, at };
        self.receive_pods(&node, history);
        if node.api_responds() {
            self.exporter.read_claims(self.world, at);
        }
        let early = at + LOG_INTERVAL >= self.next_logs + LIST_PAUSE && self.exporter.wants_logs();
        if self.world.has_logs && (at >= self.next_logs || early) {
            self.exporter.read_logs(&node.logged());
            self.next_logs = at + LOG_INTERVAL;
        }
        let early = at >= self.last_list + LIST_PAUSE && self.exporter.wants_list();
        if at >= self.next_list || early {
            let list = node.list();
            let names = list.as_ref().map(|all| all.iter().map(|pod| pod.name).collect::<Vec<_>>());
            history.push(format!("{at}: List {names:?}"));
            self.failures = if list.is_some() { 0 } else { self.failures + 1 };
            if list.is_some() {
                self.received.list = Some(at);
            }
            self.last_list = at;
            self.next_list = at + backoff(self.failures).unwrap_or(LIST_INTERVAL);
            self.exporter.list_resources(self.world, list, at);
        }
    }

    fn receive_pods(&mut self, node: &Node<'_>, history: &mut Vec<String>) {
        let at = node.at;
        match (self.connected, node.api_responds()) {
            (true, true) => self.receive_events(at, history),
            (true, false) => {
                history.push(format!("{at}: the watch ends"));
                self.exporter.pods_fail(at);
                (self.connected, self.next_connect) = (false, at + 1_000);
            }
            (false, _) if at < self.next_connect => {}
            (false, false) => {
                self.exporter.pods_fail(at);
                self.next_connect = at + 5_000;
            }
            (false, true) => {
                let pods = self.world.pods.iter().filter(|pod| api_object::exists(pod, at));
                let objects: Vec<_> = pods.map(|pod| api_object::object(pod, at)).collect();
                history.push(format!("{at}: list of {} pods", objects.len()));
                self.exporter.list_pods(&objects, at);
                self.connected = true;
                self.received.pods = Some(at);
            }
        }
    }

    fn receive_events(&mut self, at: Ms, history: &mut Vec<String>) {
        let since = self.received.pods.replace(at).unwrap_or_default();
        for (pod, changes) in self.world.pods.iter().zip(&self.changes) {
            if !changes.iter().any(|change| since < *change && *change <= at) {
                continue;
            }
            let object = api_object::object(pod, at);
            let kind = if api_object::exists(pod, at) { "MODIFIED" } else { "DELETED" };
            history.push(format!("{at}: {kind} {}: {}", pod.name, object["status"]));
            self.exporter.pod_event(kind, &object, at);
        }
    }

    fn cycle(&mut self, at: Ms) {
        let node = Node { world: self.world, at };
        self.exporter.cycle(&node);
        for (gpu, read) in self.received.read.iter_mut().enumerate() {
            if !node.hangs(gpu) {
                read.insert(0, at);
                read.truncate(3);
            }
        }
    }
}

/// The pause after a number of failures.
fn backoff(failures: u32) -> Option<Ms> {
    let doublings = failures.checked_sub(1)?;
    Some((1_000 << doublings.min(8)).min(BACKOFF_MAX))
}

/// The world in words.
fn describe(seed: u64, world: &World) -> Vec<String> {
    let mut lines = vec![format!(
        "world {seed}: {} ms, cgroup v{}, per container {}, lists ended {}, logs {}, proc {} ms later, starts {:?}",
        world.length,
        1 + u8::from(world.cgroup_v2),
        world.per_container,
        world.lists_ended,
        world.has_logs,
        world.proc_delay,
        world.starts
    )];
    lines.extend(world.gpus.iter().map(|gpu| format!("{gpu:?}")));
    for (index, pod) in world.pods.iter().enumerate() {
        lines.push(format!(
            "pod {index} {}/{} {} hash {:?}: created {}, admitted {}, deleted {:?}, gone {:?}, completed {:?}, \
             end {}, lag {} {:?}, forges {} {}, sandboxed {} {:?}, {:?} {:?}",
            pod.namespace, pod.name, pod.uid, pod.hash, pod.created, pod.admitted, pod.deleted, pod.gone,
            pod.completed, pod.end(), pod.lag, pod.status_held, pod.forges, pod.changes_amounts, pod.sandboxed,
            pod.runtime_class, pod.labels, pod.annotations
        ));
        lines.extend(pod.containers.iter().map(|container| {
            let runs: Vec<(Ms, Ms)> =
                container.runs.iter().map(|run| (run.start, run.end)).collect();
            let ids: Vec<_> =
                container.listed.iter().map(|(r, ids)| (r, ids.len(), &ids[0])).collect();
            format!(
                "  {} {:?}: runs {runs:?} {:?} {:?}, requests {:?}, listed {ids:?}, {:?}, {:?}",
                container.name,
                container.kind,
                container.foreign_id,
                container.network,
                container.requests,
                container.claims,
                container.allocations
            )
        }));
    }
    lines.extend(world.processes.iter().map(|process| format!("{process:?}")));
    lines.extend(world.faults.iter().map(|fault| format!("{fault:?}")));
    lines
}
