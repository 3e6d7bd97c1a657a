//! Looking once at everything that the exporter depends on.

use std::io;
use std::time::Duration;

use tokio::runtime;

use super::patience::Patience;
use super::sampling::Sampling;
use crate::args::{Args, Config, ReadConfig};
use crate::check::rights::Uses;
use crate::check::{
    Finding, Report, Topic, api, clock, driver, gpus, host, kubelet, library, mig, port,
};
use crate::clock::Clock;
use crate::cluster::Sources;
use crate::counters::follow::Source;
use crate::host::ProcRoot;
use crate::model::Moment;
use crate::policy;
use crate::sample::Sample;
use crate::seal::seal;
use crate::snapshot::Snapshot;

/// What is true before anything is read, and stays so.
struct Scene {
    library: Vec<std::path::PathBuf>,
    proc_root: ProcRoot,
    simulated: bool,
    cluster: Option<Sources>,
    uses: Uses,
    began: Moment,
}

/// Looks where the exporter would look, and tells what is there. Flags that cannot be used are a
/// finding like others.
#[must_use]
pub fn check(args: Args) -> Report {
    match args.config().and_then(checked) {
        Ok(findings) => Report::new(findings),
        Err(error) => Report::new(vec![unusable(FLAGS, &error)]),
    }
}

/// What is wrong with flags, and the mend that stands behind it.
fn unusable(what: &str, error: &anyhow::Error) -> Finding {
    let text = format!("{error:#}");
    match text.rsplit_once("; ") {
        Some((said, mend)) => Finding::failure(Topic::Flags, what, said).mended_by(mend),
        None => Finding::failure(Topic::Flags, what, text),
    }
}

/// Where flags come from.
const FLAGS: &str = "command line and environment";

fn checked(config: Config) -> anyhow::Result<Vec<Finding>> {
    let Config { read, serve, once: _, debug, log_format, remarks } = config;
    if debug {
        super::start_log(tracing::Level::WARN, log_format);
    }
    let mut findings = flags(&remarks);
    if let Err(error) = seal() {
        tracing::warn!(%error, "programs could be executed, though none is");
    }
    let clock = Clock::start();
    findings.push(port::look(&serve, clock));
    let (mut read, stage) = read.staged()?;
    // There is one of us, not one on each of a thousand nodes.
    if let Some(cluster) = &mut read.cluster {
        cluster.pace.start = Duration::ZERO;
    }
    let scene = Scene::of(&read, clock.now());
    // Without what is written down, what is usual is looked at.
    if let Some(Err(error)) = read.counters.as_ref().map(Source::read) {
        findings.push(unusable("counters", &error.into()));
        read.counters = None;
    }
    let mut sampling = Sampling::set_up(read, stage, clock)?;
    let patience =
        Patience::for_others("the driver and those who know of pods", policy::ONCE_OPEN)?;
    let (sample, snapshot) = sampling.look(|| drop(patience));
    findings.extend(scene.node(&sample, &snapshot, clock.now()));
    findings.extend(scene.cluster()?);
    Ok(findings)
}

fn flags(remarks: &[String]) -> Vec<Finding> {
    if remarks.is_empty() {
        return vec![Finding::ok(Topic::Flags, FLAGS, "understood")];
    }
    remarks.iter().map(|remark| Finding::note(Topic::Flags, FLAGS, remark)).collect()
}

impl Scene {
    fn of(read: &ReadConfig, began: Moment) -> Self {
        let config_map = match &read.counters {
            Some(Source::ConfigMap { namespace, name, .. }) => {
                Some((namespace.clone(), name.clone()))
            }
            Some(Source::File(_)) | None => None,
        };
        Self {
            library: read.library.clone(),
            proc_root: ProcRoot::new(&read.proc_root()),
            simulated: read.mock.is_some(),
            uses: Uses {
                claims: false,
                label: read.cluster.as_ref().is_some_and(|sources| sources.label.is_some()),
                config_map,
            },
            cluster: read.cluster.clone(),
            began,
        }
    }

    /// What the node itself tells.
    fn node(&self, sample: &Sample, snapshot: &Snapshot, now: Moment) -> Vec<Finding> {
        let (driver, root) = (&snapshot.health.driver, self.proc_root.path());
        let wants_processes = snapshot.selection.wants_processes();
        [
            library::look(&self.library, driver, root),
            driver::look(driver, root, self.simulated),
            gpus::look(sample, snapshot),
            mig::look(sample),
            host::look(&self.proc_root, wants_processes, sample, &snapshot.health.census),
            clock::look(self.began, now, &snapshot.health.gpus),
        ]
        .concat()
    }

    /// What those tell who know of pods and devices.
    fn cluster(&self) -> io::Result<Vec<Finding>> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let sources = self.cluster.as_ref();
        let socket = sources.and_then(|sources| sources.pod_resources.as_ref());
        let pods = sources.and_then(|sources| sources.pods.as_ref());
        let patience =
            Patience::for_others("the kubelet and the API server", policy::CHECK_CLUSTER)?;
        let (said, answers) = runtime
            .block_on(async { tokio::join!(kubelet::ask(socket), api::ask(pods, &self.uses)) });
        drop(patience);
        let uses = Uses { claims: kubelet::has_claims(&said), ..self.uses.clone() };
        let mut findings = vec![kubelet::socket(sources, &said)];
        findings.extend(kubelet::logs(sources));
        findings.extend(api::findings(pods.map(|(_, node)| node), &answers, &uses));
        Ok(findings)
    }
}
