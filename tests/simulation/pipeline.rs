//! The whole pipeline in this process, on the mock library and its cluster, put together as the program
//! does, with everything shown that there is. It is in a hurry: a cycle follows the other at once, and
//! the clock runs many times as fast.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nvml_exporter::accounts::Accounts;
use nvml_exporter::attribute::{DevicePods, Grain, Terms, attribute};
use nvml_exporter::catalog::{ACCOUNT, DEVICE, EVENT};
use nvml_exporter::clock::Clock;
use nvml_exporter::cluster::{Cluster, Sources, View, devices};
use nvml_exporter::host::ProcRoot;
use nvml_exporter::host::hpc_jobs::Jobs;
use nvml_exporter::labels::{Dialect, Schema, Style};
use nvml_exporter::nvml::raw::stage::stage_mock;
use nvml_exporter::policy;
use nvml_exporter::publish::Published;
use nvml_exporter::render::Part;
use nvml_exporter::reserved_labels::ReservedLabels;
use nvml_exporter::sample::Sampler;
use nvml_exporter::selection::{Frame, Request, Selection, preset};
use nvml_exporter::telemetry;

/// As long as GPUs are waited for at the most, on the clock that runs fast.
const INTERVAL: Duration = Duration::from_secs(60);

/// A pipeline, and the world that it sees.
pub(crate) struct Pipeline {
    folder: tempfile::TempDir,
    pub(crate) clock: Clock,
    sampler: Sampler,
    cluster: Cluster,
    accounts: Accounts,
    selection: Arc<Selection>,
    schema: Schema,
    last: Option<Arc<Published>>,
}

impl Pipeline {
    /// In the world of a scenario, by a clock that runs so many times as fast.
    pub(crate) fn new(world: &str, rate: u32) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let stage = folder.path().join("stage");
        fs::create_dir(&stage).unwrap();
        fs::write(folder.path().join("world.toml"), world).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_nvml-exporter"));
        let library = binary.parent().unwrap().join("libmock_nvml.so");
        stage_mock(&library, folder.path().join("world.toml").to_str().unwrap(), &stage).unwrap();
        let clock = Clock::hurried(rate);
        let proc_root = ProcRoot::new(&stage.join("proc"));
        let library: Vec<PathBuf> = vec![stage.join("libnvidia-ml.so.1")];
        let sampler = Sampler::new(clock, INTERVAL, library, proc_root).unwrap();
        let sources = Sources::staged(&stage, None).unwrap().unwrap();
        let schema = Schema {
            dialect: Dialect::Ack,
            hostname: "node-1".to_owned(),
            node_name: "node-1".to_owned(),
            extra: Vec::new(),
            style: Style::default(),
        };
        let mut requests = preset(&schema.dialect);
        requests.extend(DEVICE.iter().filter_map(|metric| Request::named(metric.name)));
        requests.extend(ACCOUNT.iter().filter_map(|metric| Request::named(metric.name)));
        requests.extend(EVENT.iter().filter_map(|metric| Request::named(metric.name)));
        Self {
            folder,
            clock,
            sampler,
            cluster: Cluster::follow(sources, clock).unwrap(),
            accounts: Accounts::default(),
            selection: Arc::new(Selection::of(&requests, Frame::default())),
            schema,
            last: None,
        }
    }

    /// Lets the world be another, all of it at once.
    pub(crate) fn turn_to(&self, world: &str) {
        let draft = self.folder.path().join("draft");
        fs::write(&draft, world).unwrap();
        fs::rename(draft, self.folder.path().join("world.toml")).unwrap();
    }

    /// One cycle, published.
    pub(crate) fn cycle(&mut self) {
        let sample = self.sampler.cycle(&self.selection);
        let view = self.cluster.view(devices(&sample), sample.at.mono, true);
        let View { sources, problems, .. } = &view;
        let now = sample.at.mono;
        let terms = Terms {
            selection: &self.selection,
            schema: &self.schema,
            device_pods: Some(&DevicePods { uid: true, labels: None, claims: true }),
            reserved: &ReservedLabels::of(&Dialect::Ack),
            jobs: &Jobs::default(),
            max_age: policy::default_max_age(Duration::from_secs(5)),
            grain: Grain::Process,
            directory: view.directory(now),
            allocation: view.allocation(),
            host_pids: Some(true),
            sources,
            problems,
        };
        let (mut snapshot, activity) = attribute(sample, &terms);
        snapshot.tables.accounts = self.accounts.book(&self.selection, &activity, now);
        self.cluster.hasten(!snapshot.health.census.unresolved.is_empty());
        telemetry::log_changes(self.last.as_deref().map(Published::snapshot), &snapshot);
        self.last = Some(Arc::new(Published::new(snapshot)));
    }

    /// The newest page.
    pub(crate) fn page(&self) -> String {
        String::from_utf8(self.scrape(false).to_vec()).unwrap()
    }

    /// The newest page as a scraper gets it.
    pub(crate) fn scrape(&self, gzip: bool) -> bytes::Bytes {
        let published = self.last.as_ref().unwrap();
        published.page(Part::Whole, self.clock.now().mono, INTERVAL, gzip)
    }
}
