//! Putting processes into containers.

use toml::Spanned;

use crate::{
    cluster::cgroup,
    scenario::{
        Process,
        cluster::{Cluster, Container, Pod},
        complaint::{Checked, Flaw, suggestion},
        file::ProcessTable,
    },
};

/// Puts the `clone`th process of a table into its container: it has its cgroup, and lives no longer
/// than the run in which it starts.
pub(in crate::scenario::check) fn place(
    process: &mut Process,
    said: &ProcessTable,
    clone: u32,
    cluster: Option<&Cluster>,
) -> Checked<()> {
    let Some(named) = &said.pod else {
        return match &said.container {
            None => Ok(()),
            Some(container) => Err(Flaw::new(
                container.span(),
                "a container is one of a pod's: give pod too, as \"namespace/name\"",
            )),
        };
    };
    let pods = cluster.map(|cluster| cluster.meant(named.get_ref())).unwrap_or_default();
    let at = usize::try_from(clone).unwrap_or_default() % pods.len().max(1);
    let Some((cluster, pod)) = cluster.zip(pods.get(at)) else {
        return Err(Flaw::new(named.span(), no_pod(named.get_ref(), cluster)));
    };
    let container = container(named, said, pod)?;
    let start = said.start.as_ref().map(|start| *start.get_ref());
    let mut runs = container.runs.iter();
    let run = runs.find(|run| start.is_none_or(|start| run.during.contains(start)));
    let Some(run) = run.filter(|run| run.during.from < process.life.to) else {
        let when = start.map_or_else(String::new, |start| format!(" at {start} s"));
        let (namespace, pod, name) = (&pod.namespace, &pod.name, &container.name);
        let text = format!(
            "container {name} of {namespace}/{pod} does not run{when}: give the \
                            process a time in one of its runs"
        );
        return Err(Flaw::new(named.span(), text));
    };
    process.life.from = process.life.from.max(run.during.from);
    process.life.to = process.life.to.min(run.during.to);
    if said.cgroup.is_none() {
        process.cgroup = cgroup::text(cluster.cgroups, cluster.runtime, pod, &run.id);
    }
    Ok(())
}

fn no_pod(said: &str, cluster: Option<&Cluster>) -> String {
    let pods = cluster.map(|cluster| cluster.pods.as_slice()).unwrap_or_default();
    let known: Vec<_> =
        pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.family)).collect();
    let near = suggestion(said, known.iter().map(String::as_str));
    let near = if near.is_empty() { ":" } else { near.as_str() };
    format!("no pod \"{said}\"{near} name a [[pod]] as \"namespace/name\"")
}

/// The container that is named, or the only one.
fn container<'a>(
    named: &Spanned<String>,
    said: &ProcessTable,
    pod: &'a Pod,
) -> Checked<&'a Container> {
    let known = || {
        let all: Vec<_> = pod.containers.iter().map(|one| format!("\"{}\"", one.name)).collect();
        all.join(", ")
    };
    match (&said.container, &pod.containers[..]) {
        (None, [one]) => Ok(one),
        (None, _) => {
            let text =
                format!("the pod has several containers: give container, one of {}", known());
            Err(Flaw::new(named.span(), text))
        }
        (Some(name), containers) => {
            let found = containers.iter().find(|one| one.name == *name.get_ref());
            found.ok_or_else(|| {
                let text = format!("no container \"{}\" there: use {}", name.get_ref(), known());
                Flaw::new(name.span(), text)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::scenario::{
        Process, Scenario,
        check::tests::{GPU, PROCESS, complaint},
    };

    const POD: &str = "[[pod]]\nname = \"p\"\nnamespace = \"n\"\ncount = 2\nstart = 5\nend = 90\n\
                       containers = [{ name = \"a\", restarts = [50] }, { name = \"b\" }]\n";

    fn processes(rest: &str) -> Vec<Process> {
        Scenario::parse("test", &format!("{GPU}{POD}{PROCESS}{rest}\n")).unwrap().processes
    }

    #[test]
    fn clones_go_round_the_pods_and_live_with_a_run() {
        let found = processes("count = 3\npod = \"n/p\"\ncontainer = \"a\"");
        assert_eq!(found[0].cgroup, found[2].cgroup);
        assert_ne!(found[0].cgroup, found[1].cgroup);
        assert_eq!((found[0].life.from, found[0].life.to), (5.0, 50.0));
        let later = processes("start = 60\npod = \"n/p-1\"\ncontainer = \"a\"");
        assert_eq!((later[0].life.from, later[0].life.to), (60.0, 90.0));
        assert_ne!(later[0].cgroup, found[1].cgroup, "another run, another container");
        let told = processes("pod = \"n/p\"\ncontainer = \"b\"\ncgroup = \"0::/x\"");
        assert_eq!((told[0].cgroup.as_str(), told[0].life.to), ("0::/x", 90.0));
    }

    #[test]
    fn a_process_that_has_no_container_is_refused() {
        for (rest, said) in [
            (
                "container = \"a\"",
                "15: a container is one of a pod's: give pod too, as \"namespace/name\"",
            ),
            (
                "pod = \"n/q\"",
                "15: no pod \"n/q\", did you mean \"n/p\"? name a [[pod]] as \"namespace/name\"",
            ),
            ("pod = \"p\"", "15: no pod \"p\": name a [[pod]] as \"namespace/name\""),
            (
                "pod = \"n/p\"",
                "15: the pod has several containers: give container, one of \"a\", \"b\"",
            ),
            ("pod = \"n/p\"\ncontainer = \"c\"", "16: no container \"c\" there: use \"a\", \"b\""),
            (
                "start = 95\npod = \"n/p\"\ncontainer = \"b\"",
                "16: container b of n/p-0 does not run at 95 s: give the process a time in one of its runs",
            ),
        ] {
            assert_eq!(complaint(&format!("{GPU}{POD}{PROCESS}{rest}\n")), said, "for {rest}");
        }
    }
}
