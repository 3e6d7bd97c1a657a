//! Validation of pods and their containers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

use toml::Spanned;

use crate::{
    cluster::resources::MigStrategy,
    scenario::{
        Gpu,
        cluster::{Container, ContainerKind, ContainerRun, GpuAllocation, Pod, Qos},
    },
    scenario_file::{
        error::{SpannedError, ValidationResult, ensure},
        tables::{ContainerTable, PodTable},
        validate::{
            cluster::{allocation, labels},
            identity::{hash, is_uuid, uuid},
            values::{parse_word, validate_name},
            windows::time_window,
        },
    },
    window::Window,
};

const MAX_PODS: usize = 1_000;
/// Default status lag in seconds: the kubelet polls its containers once per second.
const DEFAULT_LAG: f64 = 1.0;

/// The table of a container, and the position of its allocation in the file.
pub(super) struct ContainerSpans<'a> {
    pub(super) table: &'a ContainerTable,
    pub(super) allocation: Range<usize>,
}

/// The pods of the tables, with `count` expanded, and the positions of their containers in the file.
pub(super) fn check<'a>(
    seed: &str,
    tables: &'a [Spanned<PodTable>],
    gpus: &[Gpu],
    strategy: MigStrategy,
) -> ValidationResult<(Vec<Pod>, Vec<Vec<ContainerSpans<'a>>>)> {
    let (mut pods, mut spans) = (vec![], vec![]);
    let mut named = HashMap::<(String, String), Vec<Window>>::new();
    let mut uids = HashSet::new();
    for table in tables {
        let spec = table.get_ref();
        let count = count(spec, pods.len())?;
        for clone in 0..count {
            let (mut pod, containers) =
                pod(spec, (spec.count.is_some()).then_some(clone), gpus, strategy)?;
            let lives = named.entry((pod.namespace.clone(), pod.name.clone())).or_default();
            if lives.iter().any(|life| life.overlaps(pod.object_lifetime())) {
                let name =
                    format!("the name {}/{} belongs to another pod", pod.namespace, pod.name);
                let remedy = "at the same time: write a unique name or another time";
                return Err(SpannedError::new(spec.name.span(), format!("{name} {remedy}")));
            }
            identify(&mut pod, spec, seed, lives.len())?;
            lives.push(pod.object_lifetime());
            ensure(uids.insert(pod.uid.clone()), &spec.name, || {
                format!("the UID {} belongs to another pod: write a unique one", pod.uid)
            })?;
            pods.push(pod);
            spans.push(containers);
        }
    }
    Ok((pods, spans))
}

fn count(spec: &PodTable, before: usize) -> ValidationResult<usize> {
    let clones = spec.count.as_ref().map_or(1, |count| *count.get_ref());
    let clones = usize::try_from(clones).unwrap_or(usize::MAX);
    let at = spec.count.as_ref().map_or_else(|| spec.name.span(), Spanned::span);
    let sum = before.saturating_add(clones);
    if clones == 0 {
        return Err(SpannedError::new(at, "count = 0 is out of range: write 1 or more"));
    }
    if sum > MAX_PODS {
        let text = format!("{sum} pods are more than {MAX_PODS}: reduce the count");
        return Err(SpannedError::new(at, text));
    }
    Ok(clones)
}

fn pod<'a>(
    spec: &'a PodTable,
    clone: Option<usize>,
    gpus: &[Gpu],
    strategy: MigStrategy,
) -> ValidationResult<(Pod, Vec<ContainerSpans<'a>>)> {
    let family = validate_name("name", &spec.name, 240)?;
    let namespace =
        spec.namespace.as_ref().map(|spec| validate_name("namespace", spec, 63)).transpose()?;
    let life = life(spec)?;
    let completed = moment("completed", spec.completed.as_ref(), life)?;
    let mut pod = Pod {
        name: clone.map_or_else(|| family.clone(), |clone| format!("{family}-{clone}")),
        base_name: family,
        namespace: namespace.unwrap_or_else(|| "default".to_owned()),
        uid: String::new(),
        config_hash: None,
        annotations: labels::annotations(spec.annotations.as_ref())?,
        labels: labels::labels(spec.labels.as_ref())?,
        qos: Qos::BestEffort,
        runtime_class: runtime_class(spec)?,
        sandbox_id: String::new(),
        lifetime: life,
        deletion_time: moment("deleting", spec.deleting.as_ref(), life)?,
        forced_deletion_time: forced_deletion(spec, life)?,
        completion_time: completed,
        failed: failed(spec)?,
        containers: vec![],
    };
    let tables = spec.containers.get_ref();
    let text = "containers is empty: write [{ name = \"main\" }]";
    ensure(!tables.is_empty(), &spec.containers, || text.into())?;
    let mut spans = vec![];
    let starts = default_starts(&pod, tables)?;
    for (table, start) in tables.iter().zip(starts) {
        let (held, at) =
            allocation::check(table, clone.unwrap_or_default(), gpus, (strategy, life.from))?;
        let container = container(&pod, table, held, start)?;
        let twice = pod.containers.iter().any(|other| other.name == container.name);
        ensure(!twice, table, || {
            format!(
                "the name \"{}\" belongs to another container: write a unique one",
                container.name
            )
        })?;
        pod.containers.push(container);
        spans.push(ContainerSpans { table: table.get_ref(), allocation: at });
    }
    one_card(&pod, spec)?;
    let apps = pod.containers_of_kind(ContainerKind::App).count();
    ensure(apps > 0, &spec.containers, || {
        "the pod has no container of kind \"app\": add one".into()
    })?;
    pod.qos = qos(spec, &pod.containers)?;
    Ok((pod, spans))
}

/// Sets the ids of a pod and of the runs of its containers; `before` counts earlier pods of that name.
fn identify(pod: &mut Pod, spec: &PodTable, seed: &str, before: usize) -> ValidationResult<()> {
    let key = format!("{seed}/{}/{}", pod.namespace, pod.name);
    pod.uid = match &spec.uid {
        None => uuid("", &key, before),
        Some(uid) => {
            let text = uid.get_ref();
            let remedy = "write a UUID in lower-case hexadecimal";
            let error = || format!("uid = \"{text}\" is not a UUID: {remedy}");
            ensure(is_uuid("", text), uid, error)?;
            ensure(spec.count.is_none(), uid, || {
                "uid must be unique, but count makes several pods: write one [[pod]] table per pod"
                    .into()
            })?;
            text.clone()
        }
    };
    let hex = |key: &str, index: usize, words: u8| -> String {
        let words = (0..words).map(|salt| format!("{:016x}", hash(key, index, salt)));
        words.collect::<Vec<_>>().concat()
    };
    pod.config_hash = spec.is_static.then(|| hex(&format!("{key}/manifest"), before, 2));
    let uid = &pod.uid;
    pod.sandbox_id = hex(uid, 0, 4);
    for container in &mut pod.containers {
        let key = format!("{uid}/{}", container.name);
        for (at, run) in container.runs.iter_mut().enumerate() {
            run.id = hex(&key, at, 4);
        }
    }
    Ok(())
}

fn runtime_class(spec: &PodTable) -> ValidationResult<Option<String>> {
    spec.runtime_class.as_ref().map(|name| validate_name("runtime_class", name, 253)).transpose()
}

fn life(spec: &PodTable) -> ValidationResult<Window> {
    let from = spec.start.as_ref().map_or(f64::NEG_INFINITY, |start| *start.get_ref());
    let to = spec.end.as_ref().map_or(f64::INFINITY, |end| *end.get_ref());
    let finite = spec.start.as_ref().is_none_or(|start| start.get_ref().is_finite());
    if !finite || to.is_nan() || from >= to {
        let at = spec.start.as_ref().or(spec.end.as_ref()).map(Spanned::span).unwrap_or_default();
        let text =
            format!("start = {from}, end = {to} is not a lifetime: write an end after the start");
        return Err(SpannedError::new(at, text));
    }
    Ok(Window { from, to })
}

fn moment(key: &str, spec: Option<&Spanned<f64>>, life: Window) -> ValidationResult<Option<f64>> {
    let Some(spec) = spec else { return Ok(None) };
    let time = *spec.get_ref();
    ensure(life.contains(time), spec, || {
        let Window { from, to } = life;
        format!(
            "{key} = {time} is outside the lifetime of the pod: write a time from {from} s to {to} s"
        )
    })?;
    Ok(Some(time))
}

fn forced_deletion(spec: &PodTable, life: Window) -> ValidationResult<Option<f64>> {
    let forced = moment("force_deleted", spec.force_deleted.as_ref(), life)?;
    if let Some(forced) = spec.force_deleted.as_ref().filter(|_| spec.is_static) {
        let text = "a static pod ends when its manifest is removed: write end instead";
        return Err(SpannedError::new(forced.span(), text));
    }
    Ok(forced)
}

fn failed(spec: &PodTable) -> ValidationResult<bool> {
    let phases = [("Succeeded", false), ("Failed", true)];
    let failed = parse_word("phase", spec.phase.as_ref(), &phases)?;
    if let Some(phase) = spec.phase.as_ref().filter(|_| spec.completed.is_none()) {
        let text = "phase requires completed, which is missing: add completed";
        return Err(SpannedError::new(phase.span(), text));
    }
    Ok(failed.unwrap_or_default())
}

fn kind(spec: &ContainerTable) -> ValidationResult<ContainerKind> {
    let kinds = [
        ("app", ContainerKind::App),
        ("init", ContainerKind::Init),
        ("sidecar", ContainerKind::Sidecar),
        ("ephemeral", ContainerKind::Ephemeral),
    ];
    Ok(parse_word("kind", spec.kind.as_ref(), &kinds)?.unwrap_or(ContainerKind::App))
}

/// The start time of each container without the key `start`: the init containers run one after the other,
/// sidecars start in between, and the app containers after all of them.
fn default_starts(pod: &Pod, tables: &[Spanned<ContainerTable>]) -> ValidationResult<Vec<f64>> {
    let mut next = pod.lifetime.from;
    let mut starts = vec![];
    for table in tables {
        let kind = kind(table.get_ref())?;
        starts.push((kind, next));
        if kind == ContainerKind::Init {
            let end = table.get_ref().end.as_ref().map_or(f64::INFINITY, |end| *end.get_ref());
            next = next.max(end);
        }
    }
    let start = |(kind, in_turn)| match kind {
        ContainerKind::App => next,
        ContainerKind::Init | ContainerKind::Sidecar => in_turn,
        ContainerKind::Ephemeral => pod.lifetime.from,
    };
    Ok(starts.into_iter().map(start).collect())
}

fn container(
    pod: &Pod,
    table: &Spanned<ContainerTable>,
    holding: GpuAllocation,
    default_start: f64,
) -> ValidationResult<Container> {
    let spec = table.get_ref();
    let kind = kind(spec)?;
    let lag = spec.status_lag.as_ref().map_or(DEFAULT_LAG, |lag| *lag.get_ref());
    if let Some(spec) = &spec.status_lag {
        let error = || format!("status_lag = {lag} is out of range: write 0 to 3600 seconds");
        ensure((0.0..=3_600.0).contains(&lag), spec, error)?;
    }
    if kind == ContainerKind::Ephemeral {
        let is_plain = matches!(holding, GpuAllocation::Nothing)
            && spec.devices.is_none()
            && spec.limits.is_empty();
        let text = "an API server rejects resources of an ephemeral container: remove them";
        ensure(is_plain, table, || text.into())?;
    }
    Ok(Container {
        name: validate_name("name", &spec.name, 63)?,
        kind,
        runs: runs(pod, spec, kind, default_start)?,
        status_lag: lag,
        allocation: holding,
        limits: spec.limits.clone(),
        devices: vec![],
    })
}

fn runs(
    pod: &Pod,
    spec: &ContainerTable,
    kind: ContainerKind,
    default_start: f64,
) -> ValidationResult<Vec<ContainerRun>> {
    let from = spec.start.as_ref().map_or(default_start, |start| *start.get_ref());
    if let Some(start) = &spec.start {
        let end = spec.end.as_ref().map(|end| *end.get_ref());
        time_window(from, end).map_err(|error| SpannedError::new(start.span(), error))?;
        ensure(pod.lifetime.contains(from), start, || {
            let Window { from: begins, to } = pod.lifetime;
            format!(
                "start = {from} is outside the lifetime of the pod: write a time from {begins} s to {to} s"
            )
        })?;
        ensure(kind != ContainerKind::App || from >= default_start, start, || {
            format!(
                "an app container starts when all init containers have ended, at {default_start} s: \
                 write a later start, or end the init containers earlier"
            )
        })?;
    }
    let to = spec.end.as_ref().map_or(f64::INFINITY, |end| *end.get_ref());
    let to = to.min(pod.lifetime.to).min(pod.completion_time.unwrap_or(f64::INFINITY));
    if from >= to {
        return Ok(vec![]);
    }
    let restarts = spec.restarts.as_ref().map(|spec| spec.get_ref().clone()).unwrap_or_default();
    let times: Vec<_> = [from].into_iter().chain(restarts).chain([to]).collect();
    let rising = times.windows(2).all(|pair| pair.first() < pair.last());
    if let Some(spec) = &spec.restarts {
        let text =
            "restarts are not ascending times within the container lifetime: write ascending ones";
        ensure(rising, spec, || text.into())?;
    }
    let pairs = times.iter().zip(times.iter().skip(1));
    let run = |(from, to): (&f64, &f64)| ContainerRun {
        id: String::new(),
        during: Window { from: *from, to: *to },
    };
    Ok(pairs.map(run).collect())
}

/// ACK GPU sharing, version 1, allocates the same GPU to all containers of a pod.
fn one_card(pod: &Pod, spec: &PodTable) -> ValidationResult<()> {
    let mut cards = pod.containers.iter().filter_map(|container| {
        let GpuAllocation::AckV1(gpu, _) = container.allocation else { return None };
        Some(gpu)
    });
    let first = cards.next();
    let text = "ack_v1 allocates one GPU to all containers of a pod: write the same GPU";
    ensure(cards.all(|card| Some(card) == first), &spec.containers, || text.into())
}

/// The given quality-of-service class, else the one that Kubernetes derives from CPU and memory limits.
fn qos(spec: &PodTable, containers: &[Container]) -> ValidationResult<Qos> {
    let classes = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort].map(|qos| (qos.name(), qos));
    if let Some(qos) = parse_word("qos", spec.qos.as_ref(), &classes)? {
        return Ok(qos);
    }
    let has = |limits: &BTreeMap<String, String>, key: &str| limits.contains_key(key);
    let relevant = |container: &&Container| container.kind != ContainerKind::Ephemeral;
    let mut counted = containers.iter().filter(relevant).map(|container| &container.limits);
    let all = counted.clone().all(|limits| has(limits, "cpu") && has(limits, "memory"));
    let some = counted.any(|limits| has(limits, "cpu") || has(limits, "memory"));
    Ok(match (all, some) {
        (true, _) => Qos::Guaranteed,
        (false, true) => Qos::Burstable,
        (false, false) => Qos::BestEffort,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::{
        scenario::{
            Scenario,
            cluster::{Pod, Qos},
        },
        scenario_file::validate::test_scenario::GPU,
    };

    fn pods(tables: &str) -> Vec<Pod> {
        let scenario = Scenario::parse("test", &format!("{GPU}{tables}")).unwrap();
        scenario.cluster.unwrap().pods.clone()
    }

    #[test]
    fn pods_or_a_cluster_table_make_a_cluster() {
        assert!(Scenario::parse("test", GPU).unwrap().cluster.is_none());
        assert_eq!(pods("[cluster]\n").len(), 0);
        let pods = pods("[[pod]]\nname = \"p\"\ncount = 2\ncontainers = [{ name = \"c\" }]\n");
        let names: Vec<_> = pods.iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(names, ["p-0", "p-1"]);
    }

    #[test]
    fn generated_ids_are_unique_and_reproducible() {
        let text = "[[pod]]\nname = \"p\"\nend = 5\nstatic = true\ncontainers = [{ name = \"c\" }]\n\
                    [[pod]]\nname = \"p\"\nstart = 5\nstatic = true\n\
                    containers = [{ name = \"c\", restarts = [9] }]\n";
        let found = pods(text);
        let ids = |pods: &[Pod]| -> Vec<String> {
            let of = |pod: &Pod| {
                let runs = pod.containers.iter().flat_map(|container| container.runs.clone());
                let own = [pod.uid.clone(), pod.kubelet_uid().to_owned()];
                own.into_iter().chain(runs.map(|run| run.id)).collect::<Vec<_>>()
            };
            pods.iter().flat_map(of).collect()
        };
        let all = ids(&found);
        assert_eq!(all, ids(&pods(text)));
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 7);
        assert_eq!(all.iter().filter(|id| id.len() == 64).count(), 3);
        assert_eq!(all.iter().filter(|id| id.len() == 32).count(), 2);
    }

    #[test]
    fn qos_class_is_derived_from_limits() {
        let qos = |limits: &str| {
            pods(&format!(
                "[[pod]]\nname = \"p\"\ncontainers = [{{ name = \"c\", limits = {{ {limits} }} }}]\n"
            ))[0]
                .qos
        };
        assert_eq!(qos(""), Qos::BestEffort);
        assert_eq!(qos("\"nvidia.com/x\" = \"1\""), Qos::BestEffort);
        assert_eq!(qos("cpu = \"1\""), Qos::Burstable);
        assert_eq!(qos("cpu = \"1\", memory = \"1Gi\""), Qos::Guaranteed);
    }

    #[test]
    fn init_containers_run_one_after_the_other_and_app_containers_after_them() {
        let found = pods(
            "[[pod]]\nname = \"p\"\nstart = 1\ncompleted = 9\nend = 20\ncontainers = [\n\
             { name = \"c\" }, { name = \"i\", kind = \"init\", end = 4 },\n\
             { name = \"s\", kind = \"sidecar\" }, { name = \"j\", kind = \"init\", end = 6 },\n]\n",
        );
        let run = |at: usize| found[0].containers[at].runs[0].during;
        let runs: Vec<_> = (0..4).map(|at| (run(at).from, run(at).to)).collect();
        assert_eq!(runs, [(6.0, 9.0), (1.0, 4.0), (4.0, 9.0), (4.0, 6.0)]);
    }
}
