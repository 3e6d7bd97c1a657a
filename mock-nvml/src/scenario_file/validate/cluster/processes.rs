//! Assigns processes to containers.

use toml::Spanned;

use crate::{
    cluster::cgroup,
    scenario::{
        Process,
        cluster::{Cluster, Container, Pod},
    },
    scenario_file::{
        error::{SpannedError, ValidationResult, suggestion},
        tables::ProcessTable,
    },
};

/// Assigns the process number `clone` of a table to its container: sets its cgroup, and limits its lifetime
/// to the container run in which it starts.
pub(in crate::scenario_file::validate) fn assign_container(
    process: &mut Process,
    table: &ProcessTable,
    clone: u32,
    cluster: Option<&Cluster>,
) -> ValidationResult<()> {
    let Some(pod_key) = &table.pod else {
        return match &table.container {
            None => Ok(()),
            Some(container) => Err(SpannedError::new(
                container.span(),
                "container requires pod, which is missing: add pod = \"namespace/name\"",
            )),
        };
    };
    let pods = cluster.map(|cluster| cluster.pods_named(pod_key.get_ref())).unwrap_or_default();
    let at = usize::try_from(clone).unwrap_or_default() % pods.len().max(1);
    let start = table.start.as_ref().map(|start| *start.get_ref());
    let pod = pods.get(at).and_then(|pods| pod_at(pods, start));
    let Some((cluster, pod)) = cluster.zip(pod) else {
        return Err(SpannedError::new(pod_key.span(), no_pod(pod_key.get_ref(), cluster)));
    };
    let container = container(pod_key, table, pod)?;
    let mut runs = container.runs.iter();
    let run = runs.find(|run| start.is_none_or(|start| run.during.contains(start)));
    let Some(run) = run.filter(|run| run.during.from < process.lifetime.to) else {
        let when = start.map_or_else(String::new, |start| format!(" at {start} s"));
        let (namespace, pod, name) = (&pod.namespace, &pod.name, &container.name);
        let text = format!(
            "container {name} of {namespace}/{pod} does not run{when}: write a start within one of its \
             runs"
        );
        return Err(SpannedError::new(pod_key.span(), text));
    };
    process.lifetime.from = process.lifetime.from.max(run.during.from);
    process.lifetime.to = process.lifetime.to.min(run.during.to);
    if table.cgroup.is_none() {
        process.cgroup = cgroup::text(cluster.cgroups, cluster.runtime, pod, &run.id);
    }
    Ok(())
}

/// Of pods of one name, the last one that exists at world time `start`; without a start the first one.
fn pod_at<'a>(pods: &[&'a Pod], start: Option<f64>) -> Option<&'a Pod> {
    let exists = |pod: &&&Pod| start.is_some_and(|start| pod.lifetime.contains(start));
    pods.iter().rfind(exists).or(pods.first()).copied()
}

fn no_pod(name: &str, cluster: Option<&Cluster>) -> String {
    let pods = cluster.map(|cluster| cluster.pods.as_slice()).unwrap_or_default();
    let known: Vec<_> =
        pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.base_name)).collect();
    let hint = suggestion(name, known.iter().map(String::as_str));
    let hint = if hint.is_empty() { ":" } else { hint.as_str() };
    format!("pod = \"{name}\" is unknown{hint} write a [[pod]] as \"namespace/name\"")
}

/// The container in the key `container`, else the only one of the pod.
fn container<'a>(
    pod_key: &Spanned<String>,
    table: &ProcessTable,
    pod: &'a Pod,
) -> ValidationResult<&'a Container> {
    let known = || {
        let all: Vec<_> = pod.containers.iter().map(|one| format!("\"{}\"", one.name)).collect();
        all.join(", ")
    };
    match (&table.container, &pod.containers[..]) {
        (None, [one]) => Ok(one),
        (None, _) => {
            let text =
                format!("container is missing, but the pod has several: write one of {}", known());
            Err(SpannedError::new(pod_key.span(), text))
        }
        (Some(name), containers) => {
            let found = containers.iter().find(|one| one.name == *name.get_ref());
            found.ok_or_else(|| {
                let text = format!(
                    "container = \"{}\" is unknown: write one of {}",
                    name.get_ref(),
                    known()
                );
                SpannedError::new(name.span(), text)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        scenario::{Process, Scenario},
        scenario_file::validate::test_scenario::{GPU, PROCESS, error_of},
    };

    const POD: &str = "[[pod]]\nname = \"p\"\nnamespace = \"n\"\ncount = 2\nstart = 5\nend = 90\n\
                       containers = [{ name = \"a\", restarts = [50] }, { name = \"b\" }]\n";

    fn processes(rest: &str) -> Vec<Process> {
        Scenario::parse("test", &format!("{GPU}{POD}{PROCESS}{rest}\n")).unwrap().processes
    }

    #[test]
    fn processes_use_the_pods_in_turn_and_end_with_the_container_run() {
        let found = processes("count = 3\npod = \"n/p\"\ncontainer = \"a\"");
        assert_eq!(found[0].cgroup, found[2].cgroup);
        assert_ne!(found[0].cgroup, found[1].cgroup);
        assert_eq!((found[0].lifetime.from, found[0].lifetime.to), (5.0, 50.0));
        let later = processes("start = 60\npod = \"n/p-1\"\ncontainer = \"a\"");
        assert_eq!((later[0].lifetime.from, later[0].lifetime.to), (60.0, 90.0));
        assert_ne!(later[0].cgroup, found[1].cgroup, "another run has another container id");
        let explicit = processes("pod = \"n/p\"\ncontainer = \"b\"\ncgroup = \"0::/x\"");
        assert_eq!((explicit[0].cgroup.as_str(), explicit[0].lifetime.to), ("0::/x", 90.0));
    }

    #[test]
    fn process_without_a_matching_container_is_rejected() {
        for (rest, expected) in [
            (
                "container = \"a\"",
                "15: container requires pod, which is missing: add pod = \"namespace/name\"",
            ),
            (
                "pod = \"n/q\"",
                "15: pod = \"n/q\" is unknown, did you mean \"n/p\"? write a [[pod]] as \"namespace/name\"",
            ),
            ("pod = \"p\"", "15: pod = \"p\" is unknown: write a [[pod]] as \"namespace/name\""),
            (
                "pod = \"n/p\"",
                "15: container is missing, but the pod has several: write one of \"a\", \"b\"",
            ),
            (
                "pod = \"n/p\"\ncontainer = \"c\"",
                "16: container = \"c\" is unknown: write one of \"a\", \"b\"",
            ),
            (
                "start = 95\npod = \"n/p\"\ncontainer = \"b\"",
                "16: container b of n/p-0 does not run at 95 s: write a start within one of its runs",
            ),
        ] {
            assert_eq!(error_of(&format!("{GPU}{POD}{PROCESS}{rest}\n")), expected, "for {rest}");
        }
    }

    #[test]
    fn of_pods_of_one_name_a_process_is_in_the_one_that_exists_at_its_start() {
        let pods = "[[pod]]\nname = \"p\"\nforce_deleted = 20\nend = 90\n\
                    containers = [{ name = \"c\" }]\n\
                    [[pod]]\nname = \"p\"\nstart = 30\ncontainers = [{ name = \"c\" }]\n";
        let process = |pid: u32, start: &str| {
            format!(
                "[[process]]\npid = {pid}\nname = \"x\"\ngpus = [0]\nmemory = \"1 MiB\"\n\
                 pod = \"default/p\"\n{start}\n"
            )
        };
        let text = [process(1, ""), process(2, "start = 25"), process(3, "start = 40")].concat();
        let scenario = Scenario::parse("test", &format!("{GPU}{pods}{text}")).unwrap();
        let [old, new] = &scenario.cluster.as_ref().unwrap().pods[..] else { panic!("two pods") };
        let is_in =
            |at: usize, uid: &str| scenario.processes[at].cgroup.contains(&uid.replace('-', "_"));
        assert!(is_in(0, &old.uid) && is_in(1, &old.uid) && is_in(2, &new.uid));
        // The old ones outlive the object of their pod.
        assert!(scenario.processes[..2].iter().all(|one| one.lifetime.to.total_cmp(&90.0).is_eq()));
    }
}
