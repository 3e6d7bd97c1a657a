//! Validation of pods and their containers.

use std::collections::{BTreeMap, HashMap, HashSet};

use toml::Spanned;

use super::{
    super::identity::{hash, is_uuid, uuid},
    Spans, holding, name, one_of,
};
use crate::cluster::devices::Strategy;
use crate::scenario::{
    Gpu, Window,
    check::ordered,
    cluster::{Container, ContainerKind, Holding, Pod, Qos, Run},
    complaint::{Checked, Flaw, ensure},
    file::{ContainerTable, PodTable},
};

const MOST: usize = 1_000;
/// How late a status is, unless told otherwise: as long as a kubelet takes to look at its containers.
const LAG: f64 = 1.0;

/// The pods of the tables, clones written out, and where their containers are said.
pub(super) fn check<'a>(
    seed: &str,
    tables: &'a [Spanned<PodTable>],
    gpus: &[Gpu],
    strategy: Strategy,
) -> Checked<(Vec<Pod>, Vec<Vec<Spans<'a>>>)> {
    let (mut pods, mut spans) = (vec![], vec![]);
    let mut taken = HashMap::<(String, String), Vec<Window>>::new();
    let mut uids = HashSet::new();
    for table in tables {
        let said = table.get_ref();
        let count = count(said, pods.len())?;
        for clone in 0..count {
            let (mut pod, containers) =
                pod(said, (said.count.is_some()).then_some(clone), gpus, strategy)?;
            let lives = taken.entry((pod.namespace.clone(), pod.name.clone())).or_default();
            if lives.iter().any(|life| life.overlaps(pod.life)) {
                let named = format!("another pod is named {}/{}", pod.namespace, pod.name);
                let mend = "at that time: give each its own name or time";
                return Err(Flaw::new(said.name.span(), format!("{named} {mend}")));
            }
            identify(&mut pod, said, seed, lives.len())?;
            lives.push(pod.life);
            ensure(uids.insert(pod.uid.clone()), &said.name, || {
                format!("another pod has the UID {}: give each its own", pod.uid)
            })?;
            pods.push(pod);
            spans.push(containers);
        }
    }
    Ok((pods, spans))
}

fn count(said: &PodTable, before: usize) -> Checked<usize> {
    let clones = said.count.as_ref().map_or(1, |count| *count.get_ref());
    let clones = usize::try_from(clones).unwrap_or(usize::MAX);
    let at = said.count.as_ref().map_or_else(|| said.name.span(), Spanned::span);
    let sum = before.saturating_add(clones);
    if clones == 0 {
        return Err(Flaw::new(at, "count = 0: give 1 or more"));
    }
    if sum > MOST {
        return Err(Flaw::new(at, format!("{sum} pods are too many: at most {MOST}")));
    }
    Ok(clones)
}

fn pod<'a>(
    said: &'a PodTable,
    clone: Option<usize>,
    gpus: &[Gpu],
    strategy: Strategy,
) -> Checked<(Pod, Vec<Spans<'a>>)> {
    let family = name("name", &said.name, 240)?;
    let namespace = said.namespace.as_ref().map(|said| name("namespace", said, 63)).transpose()?;
    let life = life(said)?;
    let completed = moment("completed", said.completed.as_ref(), life)?;
    let mut pod = Pod {
        name: clone.map_or_else(|| family.clone(), |clone| format!("{family}-{clone}")),
        family,
        namespace: namespace.unwrap_or_else(|| "default".to_owned()),
        uid: String::new(),
        config_hash: None,
        annotations: said.annotations.clone(),
        labels: said.labels.clone(),
        qos: Qos::BestEffort,
        life,
        deleting: moment("deleting", said.deleting.as_ref(), life)?,
        completed,
        failed: failed(said)?,
        containers: vec![],
    };
    let tables = said.containers.get_ref();
    let text = "a pod needs a container: write [{ name = \"main\" }]";
    ensure(!tables.is_empty(), &said.containers, || text.into())?;
    let mut spans = vec![];
    let start = prepared(&pod, tables)?;
    for table in tables {
        let (held, at) =
            holding::check(table, clone.unwrap_or_default(), gpus, (strategy, life.from))?;
        let container = container(&pod, table, held, start)?;
        let twice = pod.containers.iter().any(|other| other.name == container.name);
        ensure(!twice, table, || {
            format!("two containers are named \"{}\": give each its own name", container.name)
        })?;
        pod.containers.push(container);
        spans.push(Spans { table: table.get_ref(), held: at });
    }
    one_card(&pod, said)?;
    let apps = pod.of_kind(ContainerKind::App).count();
    ensure(apps > 0, &said.containers, || {
        "a pod needs a container of kind \"app\": add one".into()
    })?;
    pod.qos = qos(said, &pod.containers)?;
    Ok((pod, spans))
}

/// What identifies a pod and the runs of its containers; `before` is how many had its name.
fn identify(pod: &mut Pod, said: &PodTable, seed: &str, before: usize) -> Checked<()> {
    let key = format!("{seed}/{}/{}", pod.namespace, pod.name);
    pod.uid = match &said.uid {
        None => uuid("", &key, before),
        Some(uid) => {
            let text = uid.get_ref();
            let mend = || format!("uid = \"{text}\": write a UUID in lower case hexadecimal");
            ensure(is_uuid("", text), uid, mend)?;
            ensure(said.count.is_none(), uid, || {
                "uid is one pod's own: leave out count, and write each pod out".into()
            })?;
            text.clone()
        }
    };
    let hex = |key: &str, index: usize, words: u8| -> String {
        let words = (0..words).map(|salt| format!("{:016x}", hash(key, index, salt)));
        words.collect::<Vec<_>>().concat()
    };
    pod.config_hash = said.is_static.then(|| hex(&format!("{key}/manifest"), before, 2));
    let uid = &pod.uid;
    for container in &mut pod.containers {
        let key = format!("{uid}/{}", container.name);
        for (at, run) in container.runs.iter_mut().enumerate() {
            run.id = hex(&key, at, 4);
        }
    }
    Ok(())
}

fn life(said: &PodTable) -> Checked<Window> {
    let from = said.start.as_ref().map_or(f64::NEG_INFINITY, |start| *start.get_ref());
    let to = said.end.as_ref().map_or(f64::INFINITY, |end| *end.get_ref());
    let told = said.start.as_ref().is_none_or(|start| start.get_ref().is_finite());
    if !told || to.is_nan() || from >= to {
        let at = said.start.as_ref().or(said.end.as_ref()).map(Spanned::span).unwrap_or_default();
        let text = format!("start = {from}, end = {to}: a pod must end after its start");
        return Err(Flaw::new(at, text));
    }
    Ok(Window { from, to })
}

fn moment(key: &str, said: Option<&Spanned<f64>>, life: Window) -> Checked<Option<f64>> {
    let Some(said) = said else { return Ok(None) };
    let time = *said.get_ref();
    ensure(life.contains(time), said, || {
        let Window { from, to } = life;
        format!("{key} = {time}: it must be in the pod's life, from {from} s to {to} s")
    })?;
    Ok(Some(time))
}

fn failed(said: &PodTable) -> Checked<bool> {
    let phases = [("Succeeded", false), ("Failed", true)];
    let failed = one_of("phase", said.phase.as_ref(), &phases)?;
    if let Some(phase) = said.phase.as_ref().filter(|_| said.completed.is_none()) {
        let text = "phase is that of a pod that has done its work: give completed too";
        return Err(Flaw::new(phase.span(), text));
    }
    Ok(failed.unwrap_or_default())
}

fn kind(said: &ContainerTable) -> Checked<ContainerKind> {
    let kinds = [
        ("app", ContainerKind::App),
        ("init", ContainerKind::Init),
        ("sidecar", ContainerKind::Sidecar),
        ("ephemeral", ContainerKind::Ephemeral),
    ];
    Ok(one_of("kind", said.kind.as_ref(), &kinds)?.unwrap_or(ContainerKind::App))
}

/// When the pod's containers can start: when its init containers have all ended.
fn prepared(pod: &Pod, tables: &[Spanned<ContainerTable>]) -> Checked<f64> {
    let mut start = pod.life.from;
    for table in tables {
        let said = table.get_ref();
        if kind(said)? == ContainerKind::Init {
            start = start.max(said.end.as_ref().map_or(f64::INFINITY, |end| *end.get_ref()));
        }
    }
    Ok(start)
}

fn container(
    pod: &Pod,
    table: &Spanned<ContainerTable>,
    holding: Holding,
    prepared: f64,
) -> Checked<Container> {
    let said = table.get_ref();
    let kind = kind(said)?;
    let lag = said.status_lag.as_ref().map_or(LAG, |lag| *lag.get_ref());
    if let Some(said) = &said.status_lag {
        let mend = || format!("status_lag = {lag}: give 0 to 3600 seconds");
        ensure((0.0..=3_600.0).contains(&lag), said, mend)?;
    }
    Ok(Container {
        name: name("name", &said.name, 63)?,
        kind,
        runs: runs(pod, said, kind, prepared)?,
        lag,
        holding,
        limits: said.limits.clone(),
        devices: vec![],
    })
}

fn runs(pod: &Pod, said: &ContainerTable, kind: ContainerKind, prepared: f64) -> Checked<Vec<Run>> {
    let first = if kind == ContainerKind::App { prepared } else { pod.life.from };
    let from = said.start.as_ref().map_or(first, |start| *start.get_ref());
    if let Some(start) = &said.start {
        let end = said.end.as_ref().map(|end| *end.get_ref());
        ordered(from, end).map_err(|mend| Flaw::new(start.span(), mend))?;
        ensure(pod.life.contains(from), start, || {
            let Window { from: begins, to } = pod.life;
            format!("start = {from}: it must be in the pod's life, from {begins} s to {to} s")
        })?;
    }
    let to = said.end.as_ref().map_or(f64::INFINITY, |end| *end.get_ref());
    let to = to.min(pod.life.to).min(pod.completed.unwrap_or(f64::INFINITY));
    if from >= to {
        return Ok(vec![]);
    }
    let restarts = said.restarts.as_ref().map(|said| said.get_ref().clone()).unwrap_or_default();
    let times: Vec<_> = [from].into_iter().chain(restarts).chain([to]).collect();
    let rising = times.windows(2).all(|pair| pair.first() < pair.last());
    if let Some(said) = &said.restarts {
        let text = "restarts: write rising times in the container's life";
        ensure(rising, said, || text.into())?;
    }
    let pairs = times.iter().zip(times.iter().skip(1));
    let run = |(from, to): (&f64, &f64)| Run {
        id: String::new(),
        during: Window { from: *from, to: *to },
    };
    Ok(pairs.map(run).collect())
}

/// Version 1 of ACK's share knows one GPU for all containers of a pod.
fn one_card(pod: &Pod, said: &PodTable) -> Checked<()> {
    let mut cards = pod.containers.iter().filter_map(|container| {
        let Holding::AckV1(gpu, _) = container.holding else { return None };
        Some(gpu)
    });
    let first = cards.next();
    let text = "ack_v1 gives all containers of a pod the same GPU: name one";
    ensure(cards.all(|card| Some(card) == first), &said.containers, || text.into())
}

/// As said, else from CPU and memory as Kubernetes derives it.
fn qos(said: &PodTable, containers: &[Container]) -> Checked<Qos> {
    let classes = [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort].map(|qos| (qos.name(), qos));
    if let Some(qos) = one_of("qos", said.qos.as_ref(), &classes)? {
        return Ok(qos);
    }
    let has = |limits: &BTreeMap<String, String>, key: &str| limits.contains_key(key);
    let asks = |container: &&Container| container.kind != ContainerKind::Ephemeral;
    let mut counted = containers.iter().filter(asks).map(|container| &container.limits);
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

    use crate::scenario::{
        Scenario,
        check::tests::GPU,
        cluster::{Pod, Qos},
    };

    fn pods(tables: &str) -> Vec<Pod> {
        let scenario = Scenario::parse("test", &format!("{GPU}{tables}")).unwrap();
        scenario.cluster.unwrap().pods.clone()
    }

    #[test]
    fn pods_without_a_table_make_a_cluster_and_nothing_makes_none() {
        assert!(Scenario::parse("test", GPU).unwrap().cluster.is_none());
        assert_eq!(pods("[cluster]\n").len(), 0);
        let pods = pods("[[pod]]\nname = \"p\"\ncount = 2\ncontainers = [{ name = \"c\" }]\n");
        let names: Vec<_> = pods.iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(names, ["p-0", "p-1"]);
    }

    #[test]
    fn identities_are_distinct_and_always_the_same() {
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
    fn quality_of_service_is_derived_as_kubernetes_does() {
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
    fn containers_run_between_the_init_containers_and_the_pods_end() {
        let found = pods(
            "[[pod]]\nname = \"p\"\nstart = 1\ncompleted = 9\nend = 20\ncontainers = [\n\
             { name = \"i\", kind = \"init\", end = 4 }, { name = \"c\" },\n]\n",
        );
        let run = |at: usize| found[0].containers[at].runs[0].during;
        assert_eq!((run(0).from, run(0).to, run(1).from, run(1).to), (1.0, 4.0, 4.0, 9.0));
    }
}
