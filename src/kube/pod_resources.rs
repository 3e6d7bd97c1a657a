//! The devices that the kubelet has given to containers, through its `PodResources` service.
//!
//! The service is local and outlives the API server, but it is shared: the kubelet answers all its
//! clients together so often a second and no more. So it is asked every few seconds, sooner when
//! pods have changed, and never for a scrape. It begins anew with every kubelet, on a new socket.

pub mod kubelet;
pub mod messages;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use self::kubelet::Kubelet;
use self::messages::{Allocatable, PodResourcesList};
use super::api::Fault;
use super::assignments::Assignments;
use super::source::{Failure, Health};
use crate::clock::Clock;
use crate::policy;

/// The name of this source in logs and labels.
pub const SOURCE: &str = "pod_resources";

/// The last answer, and how the service fares. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Taken {
    /// How the service fares.
    pub health: Health,
    /// What was said last, however long ago; none before the first answer.
    pub assignments: Option<Arc<Assignments>>,
}

impl Taken {
    /// Before the kubelet has said anything.
    #[must_use]
    pub fn unknown() -> Self {
        Self { health: Health::new(SOURCE), assignments: None }
    }
}

/// How often the kubelet is asked; by default as [`policy`] says.
#[derive(Clone, Debug)]
pub struct Pace {
    /// From one question to the next.
    pub every: Duration,
    /// The same when pods have changed.
    pub pause: Duration,
    /// From one question for the allocatable devices to the next.
    pub allocatable: Duration,
    /// An answer is complete within this.
    pub answer: Duration,
    /// First pause after a failure; it doubles up to `every`.
    pub backoff: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: policy::POD_RESOURCES_EVERY,
            pause: policy::POD_RESOURCES_PAUSE,
            allocatable: policy::ALLOCATABLE_EVERY,
            answer: policy::POD_RESOURCES_ANSWER,
            backoff: policy::KUBE_BACKOFF_MIN,
        }
    }
}

/// Where the kubelet listens, and how it is asked.
#[derive(Clone, Debug)]
pub struct PodResources {
    /// Its socket. It is found anew after a restart only if its directory is mounted, not itself.
    pub socket: PathBuf,
    /// How often it is asked.
    pub pace: Pace,
    /// The clock that stamps the answers.
    pub clock: Clock,
}

/// What is remembered from one question to the next.
struct Session {
    config: PodResources,
    kubelet: Option<Kubelet>,
    /// The allocatable devices, and when they were asked for.
    allocatable: Option<(Allocatable, Duration)>,
    taken: Taken,
}

impl PodResources {
    /// Publishes the assignments for as long as anybody listens. `hasten` tells that pods changed.
    pub async fn run(self, publish: watch::Sender<Taken>, hasten: Arc<Notify>) {
        let closed = publish.clone();
        tokio::select! {
            () = closed.closed() => {}
            () = self.follow(&publish, &hasten) => {}
        }
    }

    async fn follow(self, publish: &watch::Sender<Taken>, hasten: &Notify) {
        let pace = self.pace.clone();
        let mut session =
            Session { config: self, kubelet: None, allocatable: None, taken: Taken::unknown() };
        let mut failures = 0;
        loop {
            let answer = session.ask().await;
            let failed = answer.as_ref().err().map(|fault| fault.failure);
            session.take(answer);
            publish.send_replace(session.taken.clone());
            failures = if failed.is_none() { 0 } else { failures + 1 };
            match failed {
                None => {
                    sleep(pace.pause).await;
                    let rest = pace.every.saturating_sub(pace.pause);
                    // Either way the next question is due.
                    let _hastened = timeout(rest, hasten.notified()).await;
                }
                // To look for a socket costs nothing, but there may be no kubelet at all.
                Some(Failure::Absent) => sleep(pace.every).await,
                Some(_) => {
                    let random = fastrand::f64();
                    let most = pace.every.max(pace.backoff);
                    sleep(policy::jittered_backoff(pace.backoff, most, failures, random)).await;
                }
            }
        }
    }
}

impl Session {
    /// One question, or two when the allocatable devices are due.
    async fn ask(&mut self) -> Result<Assignments, Fault> {
        let patience = self.config.pace.answer;
        let asked = self.config.clock.now().mono;
        // The connection comes back only with an answer: whatever failed, the next is new.
        let mut kubelet = match self.kubelet.take() {
            Some(kubelet) if kubelet.is_current(&self.config.socket) => kubelet,
            Some(_) | None => {
                let kubelet = Kubelet::connect(&self.config.socket, patience).await?;
                // Another kubelet may have other device plugins.
                self.allocatable = None;
                kubelet
            }
        };
        let PodResourcesList { pods, containers } = kubelet.list(patience).await?;
        let healthy = self.renew_allocatable(&mut kubelet, asked).await;
        self.kubelet = healthy.then_some(kubelet);
        let allocatable = self.allocatable.as_ref().map(|(devices, _)| devices.clone());
        Ok(Assignments {
            pods,
            unconfirmed: BTreeSet::new(),
            containers,
            allocatable: allocatable.unwrap_or_default(),
            taken: asked,
        })
    }

    /// Asks for the allocatable devices if they are due; whether the connection is still good. A
    /// failure leaves those of before for one more period, and is no failure of the assignments.
    async fn renew_allocatable(&mut self, kubelet: &mut Kubelet, now: Duration) -> bool {
        let Pace { allocatable: period, answer, .. } = self.config.pace;
        let age = self.allocatable.as_ref().map(|(_, asked)| now.saturating_sub(*asked));
        if age.is_some_and(|age| age < period) {
            return true;
        }
        match kubelet.allocatable(answer).await {
            Ok(devices) => self.allocatable = Some((devices, now)),
            Err(fault) => {
                self.taken.health.count(fault.failure);
                if fault.failure == Failure::Unsupported {
                    self.allocatable = Some((Allocatable::new(), now));
                } else if age.is_some_and(|age| age >= 2 * period) {
                    self.allocatable = None;
                }
                return !matches!(fault.failure, Failure::Connection | Failure::Timeout);
            }
        }
        true
    }

    fn take(&mut self, answer: Result<Assignments, Fault>) {
        match answer {
            Ok(assignments) => {
                self.taken.health.answered(self.config.clock.now().mono);
                self.taken.assignments = Some(Arc::new(assignments));
            }
            Err(fault) => self.taken.health.failed(fault.failure, &fault.detail),
        }
    }
}
