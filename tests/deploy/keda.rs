//! The `ScaledObject`s for KEDA: a model of its Prometheus scaler and of its operator, on the exporter and a real
//! Prometheus, to the number of replicas.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::autoscaler::external_replicas;
use crate::exported_families;
use crate::manifests::documents;
use crate::programs::{Server, kubernetes_job, read, tool_path, url_encode};
use crate::rules::series_names;

const FILES: [&str; 3] = ["sm-utilization.yaml", "memory.yaml", "idle-to-zero.yaml"];
/// The Deployment in the files.
const DEPLOYMENT: &str = "bert-intent-detection";

/// A trigger of type `prometheus` with `ignoreNullValues: "false"` and the metric type `Value`.
struct Trigger {
    query: String,
    /// In thousandths.
    threshold: i64,
    activation_threshold: f64,
}

/// A `ScaledObject` without a fallback.
struct ScaledObject {
    triggers: Vec<Trigger>,
    bounds: (usize, usize),
}

/// Why the number of replicas does not change.
#[derive(Debug, PartialEq)]
enum Held {
    /// A trigger has no value.
    TriggerFailed,
}

impl ScaledObject {
    fn load(folder: &str, file: &str) -> Self {
        let document = documents(&read(&format!("daemonset/rules/keda/{folder}/{file}"))).remove(0);
        assert_eq!(
            (&document["apiVersion"], &document["kind"]),
            (&json!("keda.sh/v1alpha1"), &json!("ScaledObject"))
        );
        let spec = &document["spec"];
        assert_eq!(spec["scaleTargetRef"]["name"], DEPLOYMENT);
        // A fallback of 0 replicas would stop a service when its exporter fails.
        assert_eq!(spec["fallback"], Value::Null);
        let bound = |key: &str| usize::try_from(spec[key].as_u64().unwrap()).unwrap();
        Self {
            triggers: spec["triggers"].as_array().unwrap().iter().map(Trigger::new).collect(),
            bounds: (bound("minReplicaCount"), bound("maxReplicaCount")),
        }
    }

    /// The number of replicas of `service`, of which `current` are ready, after the cooldown period.
    fn replicas(&self, service: &str, current: usize, prometheus: &Server) -> Result<usize, Held> {
        let values: Vec<Option<f64>> =
            self.triggers.iter().map(|trigger| trigger.value(service, prometheus)).collect();
        let pairs = || self.triggers.iter().zip(&values);
        let is_active = pairs().any(|(trigger, value)| *value > Some(trigger.activation_threshold));
        let has_error = values.contains(&None);
        if !is_active && has_error {
            return Err(Held::TriggerFailed);
        }
        let (min, max) = self.bounds;
        if !is_active && min == 0 {
            return Ok(0);
        }
        // The largest number that a trigger asks for; a failed one prevents scaling in.
        let of = |(trigger, value): (&Trigger, &Option<f64>)| {
            value.map(|value| external_replicas(thousandths(value), trigger.threshold, current))
        };
        let desired = pairs().filter_map(of).max().ok_or(Held::TriggerFailed)?;
        if has_error && desired < current {
            return Err(Held::TriggerFailed);
        }
        Ok(desired.clamp(min.max(1), max))
    }
}

impl Trigger {
    fn new(trigger: &Value) -> Self {
        let metadata = &trigger["metadata"];
        assert_eq!(
            (&trigger["type"], &trigger["metricType"]),
            (&json!("prometheus"), &json!("Value"))
        );
        // The default reads no result as 0.
        assert_eq!(metadata["ignoreNullValues"], "false");
        let number = |key: &str| metadata[key].as_str().map(|text| text.parse::<f64>().unwrap());
        Self {
            query: metadata["query"].as_str().unwrap().to_owned(),
            threshold: thousandths(number("threshold").unwrap()),
            activation_threshold: number("activationThreshold").unwrap_or(0.0),
        }
    }

    /// The value for the Deployment `service`; `None` is an error of the scaler.
    fn value(&self, service: &str, prometheus: &Server) -> Option<f64> {
        let body = prometheus.query(&self.query.replace(DEPLOYMENT, service));
        let response: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(response["status"], "success", "{body}");
        let result = response["data"]["result"].as_array().unwrap();
        assert!(result.len() <= 1, "one element: {body}");
        let value = result.first()?["value"][1].as_str().unwrap().parse().unwrap();
        Some(value).filter(|value: &f64| value.is_finite())
    }
}

fn thousandths(value: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "KEDA truncates")]
    let thousandths = (value * 1000.0) as i64;
    thousandths
}

/// What one replica of a service does on its GPU: SM utilization and GiB of 45; `None` for no process.
type Load = Option<(u32, u32)>;

/// A service, the load of each replica, and which of them have readings that fail.
struct Service {
    name: &'static str,
    loads: &'static [Load],
    unknown: &'static [usize],
    /// Replicas on nodes without a working exporter.
    elsewhere: usize,
}

const fn service(name: &'static str, loads: &'static [Load], unknown: &'static [usize]) -> Service {
    Service { name, loads, unknown, elsewhere: 0 }
}

const SERVICES: [Service; 8] = [
    service("hot", &[Some((90, 44)), Some((90, 44))], &[]),
    service("warm", &[Some((60, 36)), Some((60, 36))], &[]),
    service("cool", &[Some((10, 4)), Some((10, 4)), Some((10, 4))], &[]),
    service("idle", &[None, None], &[]),
    service("hot-and-unknown", &[Some((90, 44)), Some((90, 44))], &[1]),
    service("idle-and-unknown", &[None, Some((90, 44))], &[1]),
    service("unknown", &[Some((90, 44))], &[0]),
    Service { elsewhere: 1, ..service("idle-and-elsewhere", &[None], &[]) },
];

/// A label convention: the folder of its files, the flags of the exporter, and `honorLabels`.
struct Convention {
    folder: &'static str,
    flags: &'static [&'static str],
    honor_labels: bool,
}

const DCGM: &[&str] = &["--dialect=dcgm-exporter", "--kubernetes"];
const CONVENTIONS: [Convention; 4] = [
    Convention { folder: "ack", flags: &[], honor_labels: false },
    Convention { folder: "ack", flags: &[], honor_labels: true },
    Convention { folder: "dcgm-exporter", flags: DCGM, honor_labels: false },
    Convention { folder: "dcgm-exporter-honor-labels", flags: DCGM, honor_labels: true },
];

/// One GPU per replica; these NVML functions fail for the replicas that are unknown.
fn scenario(failing: &[&str]) -> String {
    let count: usize = SERVICES.iter().map(|service| service.loads.len()).sum();
    let mut text = format!("now = 60\n\n[[gpu]]\nmodel = \"L20\"\ncount = {count}\n");
    let replicas = SERVICES.iter().flat_map(|service| {
        let loads = service.loads.iter().enumerate();
        loads.map(move |(replica, load)| (service, replica, load))
    });
    for (gpu, (service, replica, load)) in replicas.enumerate() {
        let pod = format!("{}-7c9f6d5b8-4xk2{replica}", service.name);
        let containers = format!("containers = [{{ name = \"c\", gpus = [{gpu}] }}]");
        writeln!(text, "\n[[pod]]\nname = \"{pod}\"\n{containers}").unwrap();
        if let Some((sm, memory)) = load {
            let pid = 100 + gpu;
            writeln!(
                text,
                "\n[[process]]\npid = {pid}\nname = \"p\"\npod = \"default/{pod}\"\n\
                 gpus = [{gpu}]\nmemory = \"{memory} GiB\"\nsm = {sm}"
            )
            .unwrap();
        }
        for function in failing.iter().filter(|_| service.unknown.contains(&replica)) {
            let fault = format!("function = \"{function}\"\ngpu = {gpu}\ncode = \"UNKNOWN\"");
            writeln!(text, "\n[[fault]]\n{fault}").unwrap();
        }
    }
    text
}

/// What kube-state-metrics exports of the Deployments.
fn kube_state_metrics() -> String {
    let replicas = SERVICES.iter().map(|service| {
        let (name, count) = (service.name, service.loads.len() + service.elsewhere);
        format!(
            "kube_deployment_status_replicas{{namespace=\"default\",deployment=\"{name}\"}} {count}\n"
        )
    });
    replicas.collect()
}

/// An exporter, kube-state-metrics and a Prometheus that scrapes both.
struct Setup {
    _folder: TempDir,
    exporter: Server,
    prometheus: Server,
}

impl Setup {
    /// Starts them, and waits until `series` has a value of the pods that are not unknown.
    fn start(convention: &Convention, failing: &[&str], series: &str) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let file = folder.path().join("scenario.toml");
        fs::write(&file, scenario(failing)).unwrap();
        let mock = format!("--mock={}", file.display());
        let flags = [mock.as_str(), "--collect-interval=300", "--node-name=node-1"];
        let exporter = Server::start_exporter(&[&flags, convention.flags].concat());
        let state = Server::serve_text(kube_state_metrics());
        let jobs = [
            kubernetes_job("gpu", exporter.address(), convention.honor_labels),
            kubernetes_job("kube-state-metrics", state.address(), true),
        ];
        let program = tool_path("debian/usr/bin/prometheus");
        let prometheus = Server::start_prometheus_with_jobs(&program, &jobs, &json!([]));
        let known: usize =
            SERVICES.iter().map(|service| service.loads.len() - service.unknown.len()).sum();
        let query = format!(
            "count(count by (UUID) ({series})) == {known} and on () group(kube_deployment_status_replicas)"
        );
        let path = format!("/api/v1/query?query={}", url_encode(&query));
        prometheus.wait_for(&path, |body| body.contains(r#""value""#));
        Self { _folder: folder, exporter, prometheus }
    }

    /// The number of replicas of each service, and of one that has none.
    fn replicas(&self, object: &ScaledObject) -> Vec<(&'static str, Result<usize, Held>)> {
        let of = |service: &Service| {
            let current = service.loads.len() + service.elsewhere;
            (service.name, object.replicas(service.name, current, &self.prometheus))
        };
        let absent = ("absent", object.replicas("absent", 1, &self.prometheus));
        SERVICES.iter().map(of).chain([absent]).collect()
    }
}

const HELD: Result<usize, Held> = Err(Held::TriggerFailed);

#[test]
fn services_scale_on_utilization_and_to_zero_only_if_idle() {
    let failing = [
        "nvmlDeviceGetProcessUtilization",
        "nvmlDeviceGetProcessesUtilizationInfo",
        "nvmlDeviceGetUtilizationRates",
    ];
    for convention in CONVENTIONS {
        let is_ack = convention.folder == "ack";
        let series = if is_ack { "DCGM_CUSTOM_PROCESS_SM_UTIL" } else { "DCGM_FI_DEV_GPU_UTIL" };
        let setup = Setup::start(&convention, &failing, series);
        let object = |file| ScaledObject::load(convention.folder, file);
        let expected = [
            // ceil(2 × 90 / 60)
            ("hot", Ok(3)),
            ("warm", Ok(2)),
            ("cool", Ok(1)),
            ("idle", Ok(1)),
            // ceil(2 × (90 + 60) / 2 / 60)
            ("hot-and-unknown", Ok(3)),
            ("idle-and-unknown", Ok(1)),
            ("unknown", HELD),
            ("idle-and-elsewhere", Ok(1)),
            ("absent", HELD),
        ];
        let replicas = setup.replicas(&object("sm-utilization.yaml"));
        assert_eq!(replicas, expected, "{} {}", convention.folder, convention.honor_labels);

        let expected = expected.map(|(name, replicas)| match name {
            "idle" => (name, Ok(0)),
            "idle-and-unknown" | "idle-and-elsewhere" => (name, HELD),
            _ => (name, replicas),
        });
        let replicas = setup.replicas(&object("idle-to-zero.yaml"));
        assert_eq!(replicas, expected, "{} {}", convention.folder, convention.honor_labels);

        // Without an exporter nothing is idle.
        let Setup { exporter, prometheus, .. } = setup;
        drop(exporter);
        let down = url_encode("up{job=\"gpu\"} == 0");
        prometheus.wait_for(&format!("/api/v1/query?query={down}"), |body| body.contains("value"));
        for file in ["sm-utilization.yaml", "idle-to-zero.yaml"] {
            for service in ["hot", "idle"] {
                assert_eq!(
                    object(file).replicas(service, 2, &prometheus),
                    HELD,
                    "{file} {service}"
                );
            }
        }
    }
}

#[test]
fn services_scale_on_memory() {
    let lists =
        ["nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v3"];
    let memory = ["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"];
    for convention in CONVENTIONS {
        let is_ack = convention.folder == "ack";
        let (failing, series) = if is_ack {
            (lists, "DCGM_CUSTOM_PROCESS_MEM_USED")
        } else {
            (memory, "DCGM_FI_DEV_FB_USED")
        };
        let setup = Setup::start(&convention, &failing, series);
        let replicas = setup.replicas(&ScaledObject::load(convention.folder, "memory.yaml"));
        let expected = [
            // ceil(2 × 0.98 / 0.8)
            ("hot", Ok(3)),
            ("warm", Ok(2)),
            ("cool", Ok(1)),
            ("idle", Ok(1)),
            ("hot-and-unknown", Ok(3)),
            ("idle-and-unknown", Ok(1)),
            ("unknown", HELD),
            ("idle-and-elsewhere", Ok(1)),
            ("absent", HELD),
        ];
        assert_eq!(replicas, expected, "{} {}", convention.folder, convention.honor_labels);
    }
}

#[test]
fn scaled_objects_use_existing_series_and_differ_by_labels_only() {
    for file in FILES {
        for folder in ["ack", "dcgm-exporter", "dcgm-exporter-honor-labels"] {
            for trigger in ScaledObject::load(folder, file).triggers {
                exported_families::check_series(file, &series_names(&trigger.query));
            }
        }
        let text = |folder: &str| read(&format!("daemonset/rules/keda/{folder}/{file}"));
        let renamed = text("dcgm-exporter").replace("exported_", "");
        let renamed = renamed.replace("honorLabels: false", "honorLabels: true");
        assert_eq!(renamed, text("dcgm-exporter-honor-labels"), "{file}");
    }
}
