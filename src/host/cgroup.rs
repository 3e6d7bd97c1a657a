//! Parses `/proc/<pid>/cgroup` into the container, pod or host that the process runs in. Pure.
//!
//! One rule for every runtime, cgroup driver and hierarchy. A path is split at its slashes, and its
//! segments at their colons (`slice:runtime:id`, where kubelet and runtime use different cgroup
//! drivers). A component that names a pod starts a pod, and the first container id after it is
//! that pod's container. Ids further down belong to containers nested inside it.

mod directory;
pub mod version;

use crate::model::{CgroupLocation, ContainerId, PodPath, PodUid};

/// Parses the content of a `cgroup` file.
#[must_use]
pub fn parse(text: &[u8]) -> CgroupLocation {
    let (mut pods, mut bare) = (Vec::new(), Vec::new());
    for line in text.split(|byte| *byte == b'\n') {
        match parse_path(path(line)) {
            ParsedPath::Pods(line) => pods.push(line),
            ParsedPath::Container(id) => bare.push(id),
            ParsedPath::Nothing => {}
        }
    }
    // Lines with a pod take precedence over lines without one: on a node with both cgroup versions,
    // hierarchies that the kubelet does not manage contain the runtime's service, or nothing.
    match (pods.is_empty(), bare.split_first()) {
        (false, _) => merge_pod_lines(&pods),
        (true, Some((first, others))) if others.iter().all(|id| id == first) => {
            CgroupLocation::Container(first.clone())
        }
        (true, Some(_)) => CgroupLocation::Conflict,
        (true, None) => CgroupLocation::Host,
    }
}

/// What the path of one line names.
enum ParsedPath {
    /// The pods along the path, outermost first.
    Pods(Vec<PodPath>),
    /// The first container id of a path without pods.
    Container(ContainerId),
    Nothing,
}

/// The path of `hierarchy:controllers:path`, which may contain colons itself; the whole line if it
/// has another format.
fn path(line: &[u8]) -> &[u8] {
    let mut fields = line.splitn(3, |byte| *byte == b':');
    let path = match (fields.next(), fields.next(), fields.next()) {
        (Some(hierarchy), Some(_controllers), Some(path))
            if hierarchy.trim_ascii().iter().all(u8::is_ascii_digit) =>
        {
            path
        }
        _ => line,
    };
    // Suffix of cgroup v2 for a cgroup that was removed while it still had a process.
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

fn parse_path(path: &[u8]) -> ParsedPath {
    let mut pods: Vec<PodPath> = Vec::new();
    let mut bare = None;
    for part in path_components(path) {
        if let Some(uid) = pod_uid(part) {
            pods.push(PodPath { uid, container: None });
        } else if let Some(id) = container_id(part) {
            match pods.last_mut() {
                Some(pod) => pod.container = pod.container.take().or(Some(id)),
                None => bare = bare.or(Some(id)),
            }
        }
    }
    match bare {
        _ if !pods.is_empty() => ParsedPath::Pods(pods),
        Some(id) => ParsedPath::Container(id),
        None => ParsedPath::Nothing,
    }
}

/// The components of a path, without mount units (no process runs there) and container monitors
/// (their names contain the id of the monitored container).
fn path_components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|segment| !segment.ends_with(b".mount"))
        .flat_map(|segment| segment.split(|byte| *byte == b':'))
        .filter(|part| !part.windows(CONMON.len()).any(|window| window == CONMON))
}

const CONMON: &[u8] = b"conmon-";

/// Parses `pod<uid>`, optionally after a prefix that ends in a dash, with or without `.slice`.
fn pod_uid(part: &[u8]) -> Option<PodUid> {
    let part = part.strip_suffix(b".slice").unwrap_or(part);
    [36, 32].into_iter().find_map(|digits| {
        let (head, uid) = part.split_at_checked(part.len().checked_sub(digits)?)?;
        let parent = head.strip_suffix(b"pod")?;
        (parent.is_empty() || parent.ends_with(b"-")).then(|| PodUid::parse(uid))?
    })
}

/// Parses a container id, optionally after a prefix that ends in a dash or an underscore, with or
/// without a suffix such as `.scope`.
fn container_id(part: &[u8]) -> Option<ContainerId> {
    trailing_id(part).or_else(|| {
        let dot = part.iter().rposition(|byte| *byte == b'.')?;
        let (name, suffix) = part.split_at_checked(dot)?;
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let suffix = suffix.strip_prefix(b".").filter(|suffix| !suffix.is_empty())?;
        suffix.iter().all(word).then(|| trailing_id(name))?
    })
}

fn trailing_id(name: &[u8]) -> Option<ContainerId> {
    let (prefix, id) = name.split_at_checked(name.len().checked_sub(ContainerId::LEN)?)?;
    matches!(prefix.last(), None | Some(b'-' | b'_')).then(|| ContainerId::parse(id))?
}

/// Merges the lines that name pods; their order does not matter.
///
/// Lines agree if each is a prefix of the longest one: a hierarchy that an inner kubelet does not
/// manage ends at the outer pod. Different pods at one depth are a conflict. Different containers
/// of the innermost pod leave the pod known and its container unknown. Different containers of an
/// outer pod are a conflict, since the process may not be in the inner pod.
fn merge_pod_lines(lines: &[Vec<PodPath>]) -> CgroupLocation {
    let Some(longest) = lines.iter().max_by_key(|line| line.len()) else {
        return CgroupLocation::Conflict;
    };
    let mut agreed = longest.clone();
    let mut ambiguous = vec![false; agreed.len()];
    for line in lines {
        for ((pod, agreed), ambiguous) in line.iter().zip(&mut agreed).zip(&mut ambiguous) {
            if pod.uid != agreed.uid {
                return CgroupLocation::Conflict;
            }
            match (&pod.container, &agreed.container) {
                (Some(id), Some(known)) => *ambiguous |= id != known,
                (Some(id), None) => agreed.container = Some(id.clone()),
                (None, _) => {}
            }
        }
    }
    let Some((last, outer)) = ambiguous.split_last() else { return CgroupLocation::Conflict };
    if outer.contains(&true) {
        return CgroupLocation::Conflict;
    }
    if let (true, Some(pod)) = (*last, agreed.last_mut()) {
        pod.container = None;
    }
    agreed.reverse();
    CgroupLocation::Pod(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POD: &str = "3f6a1c58-90de-4b27-a1f4-0c9d5e7b2a63";
    const OTHER: &str = "b1d0e7c2-1111-4222-8333-94a5b6c7d8e9";
    const STATIC: &str = "9c1185a5c5e9fc54612808977ee8f548";

    /// A container id that repeats one digit.
    fn id(digit: char) -> String {
        digit.to_string().repeat(ContainerId::LEN)
    }

    fn slice(uid: &str) -> String {
        uid.replace('-', "_")
    }

    /// The parsed location as text: pods as `uid/id`, innermost first.
    fn read(text: &str) -> String {
        match parse(text.as_bytes()) {
            CgroupLocation::Host => "host".to_owned(),
            CgroupLocation::Conflict => "conflict".to_owned(),
            CgroupLocation::Container(id) => id.to_string(),
            CgroupLocation::Pod(pods) => {
                let pods = pods.iter().map(|pod| match &pod.container {
                    Some(id) => format!("{}/{id}", pod.uid),
                    None => pod.uid.to_string(),
                });
                pods.collect::<Vec<_>>().join(" in ")
            }
        }
    }

    fn check(path: &str, expected: &str) {
        for prefix in ["0::", "4:memory:", "1:name=systemd:", "3:cpu,cpuacct:"] {
            for end in ["", "\n"] {
                assert_eq!(read(&format!("{prefix}{path}{end}")), expected, "{prefix}{path}");
            }
        }
    }

    #[test]
    fn cgroupfs_driver_paths() {
        let (a, both) = (id('a'), format!("{POD}/{}", id('a')));
        check(&format!("/kubepods/burstable/pod{POD}/{a}"), &both);
        check(&format!("/kubepods/besteffort/pod{POD}/{a}"), &both);
        check(&format!("/kubepods/pod{POD}/{a}"), &both);
        check(&format!("/kubepods/pod{POD}/crio-{a}"), &both);
        check(&format!("/kubepods/kubepods/besteffort/pod{POD}/{a}"), &both);
        check(&format!("/service.slice/pod{POD}.slice/{a}"), &both);
        check(&format!("/docker/{}/kubelet/kubepods/burstable/pod{POD}/{a}", id('f')), &both);
    }

    #[test]
    fn systemd_driver_paths() {
        let (a, both, uid) = (id('a'), format!("{POD}/{}", id('a')), slice(POD));
        for runtime in ["cri-containerd", "crio", "docker", "pouch"] {
            let scope = format!("{runtime}-{a}.scope");
            let burstable = format!("kubepods-burstable-pod{uid}.slice");
            check(&format!("/kubepods.slice/kubepods-burstable.slice/{burstable}/{scope}"), &both);
            check(&format!("/kubepods.slice/kubepods-pod{uid}.slice/{scope}"), &both);
            let kind = format!("kubelet-kubepods-besteffort-pod{uid}.slice");
            check(&format!("/kubelet.slice/kubelet-kubepods.slice/{kind}/{scope}"), &both);
        }
        check(&format!("/kubepods.slice/kubepods-pod{POD}.slice/crio-{a}"), &both);
    }

    #[test]
    fn kubelet_and_runtime_with_different_cgroup_drivers() {
        let (a, both) = (id('a'), format!("{POD}/{}", id('a')));
        let part = format!("kubepods-burstable-pod{}.slice:cri-containerd:{a}", slice(POD));
        for parent in ["", "/system.slice/containerd.service", "/podruntime.slice/x.service"] {
            check(&format!("{parent}/{part}"), &both);
        }
        check(&format!("/kuberuntime/kubepods-pod{}:cri-containerd:{a}", slice(POD)), &both);
        assert_eq!(read(&format!("/{part}")), both, "a path without its hierarchy");
    }

    #[test]
    fn static_pod_uid_is_a_hash() {
        let (a, both) = (id('a'), format!("{STATIC}/{}", id('a')));
        check(&format!("/kubepods/burstable/pod{STATIC}/{a}"), &both);
        let pod = format!("kubepods-burstable-pod{STATIC}.slice");
        check(&format!("/kubepods.slice/{pod}/cri-containerd-{a}.scope"), &both);
        check(&format!("/../../pod{STATIC}/{a}"), &both);
    }

    #[test]
    fn paths_of_a_private_cgroup_namespace() {
        let (a, both) = (id('a'), format!("{POD}/{}", id('a')));
        let pod = format!("kubepods-besteffort-pod{}.slice", slice(POD));
        check(&format!("/../../{pod}/cri-containerd-{a}.scope"), &both);
        check(&format!("../../../{pod}/docker-{a}.scope"), &both);
        check(&format!("/../cri-containerd-{a}.scope"), &a);
        check("/../../..", "host");
    }

    #[test]
    fn container_without_pod() {
        let a = id('a');
        for path in ["/k8s.io/", "/docker/", "/ecs/a-task/", "/libpod_parent/libpod-", "/", "/x_"] {
            check(&format!("{path}{a}"), &a);
        }
        check(&format!("/system.slice/docker-{a}.scope"), &a);
        check(&format!("/system.slice/docker-{a}.scope/system.slice/containerd.service"), &a);
        check(&format!("/kata_overhead/{a}"), &a);
        check(&format!("/docker/{a}/docker/{}", id('b')), &a);
    }

    #[test]
    fn cgroup_below_container_belongs_to_container() {
        let (a, both) = (id('a'), format!("{POD}/{}", id('a')));
        let scope = format!("/kubepods.slice/kubepods-pod{}.slice/crio-{a}.scope", slice(POD));
        for inner in [
            "container",
            "init.scope",
            "system.slice/app.service",
            "syscont-cgroup-root/init.scope",
        ] {
            check(&format!("{scope}/{inner}"), &both);
        }
        check(&format!("/kubepods/pod{POD}/{a} (deleted)"), &both);
    }

    #[test]
    fn first_id_after_pod_is_its_container() {
        // Not the last id (a nested container), nor the first id of the path (the node's
        // container).
        let (a, b, both) = (id('a'), id('b'), format!("{POD}/{}", id('a')));
        check(&format!("/kubepods/pod{POD}/{a}/docker/{b}"), &both);
        check(&format!("/system.slice/docker-{b}.scope/kubepods/burstable/pod{POD}/{a}"), &both);
    }

    #[test]
    fn nested_node_yields_both_pods() {
        let inner =
            format!("kubelet-kubepods-pod{}.slice/cri-containerd-{}", slice(OTHER), id('b'));
        check(
            &format!("/kubepods/pod{POD}/{}/kubelet.slice/{inner}.scope", id('a')),
            &format!("{OTHER}/{} in {POD}/{}", id('b'), id('a')),
        );
    }

    #[test]
    fn pod_without_container_id() {
        check(&format!("/kubepods/besteffort/pod{POD}"), POD);
        check(&format!("/kubepods.slice/kubepods-pod{}.slice", slice(POD)), POD);
        check(&format!("/kubepods/pod{POD}/crio-conmon-{}", id('a')), POD);
        check(&format!("/kubepods/pod{POD}/crio-{}.mount", id('a')), POD);
        check(&format!("/kubepods/pod{POD}/{OTHER}"), POD);
        check(&format!("/kubepods/pod{POD}/crio-{}", &id('a')[1..]), POD);
    }

    #[test]
    fn host_paths() {
        let short = id('a')[1..].to_owned();
        for path in [
            "",
            "/",
            "/init",
            "/init.scope",
            "/user.slice/user-1000.slice/session-2.scope",
            "/system.slice/run-9c1185a5c5e9fc54612808977ee8f548.scope",
            "/podruntime.slice/kubelet.service",
            "/kubepods/burstable",
            "/kubepods/pod123/container",
            "/ecs/9c1185a5c5e9fc54612808977ee8f548-3054012820",
            &format!("/docker/{short}"),
            &format!("/docker/0{}", id('a')),
            &format!("/docker/{}", id('g')),
            &format!("/docker/{}", id('A')),
            &format!("/machine.slice/libpod-conmon-{}.scope", id('a')),
            &format!("/system.slice/run-docker-{}-rootfs.mount", id('a')),
            &format!("/user.slice/vte-spawn-{POD}.scope"),
            &format!("/kubepods/tripod{POD}"),
            &format!("/kubepods/pod{}", POD.to_uppercase()),
        ] {
            check(path, "host");
        }
        for text in ["", "\n\n", "pids: /", "invalid", ":::", "0:", "0::"] {
            assert_eq!(read(text), "host", "{text:?}");
        }
    }

    #[test]
    fn line_with_pod_takes_precedence() {
        // The cgroup v2 line is not preferred: the kubelet may not manage that hierarchy.
        let (a, node) = (id('a'), id('f'));
        let pod = format!("5:memory:/docker/{node}/kubepods/pod{POD}/{a}");
        let others = [
            "0::/system.slice/containerd.service".to_owned(),
            format!("0::/docker/{node}/system.slice/containerd.service"),
            "13:rdma:/".to_owned(),
        ];
        for other in others {
            assert_eq!(read(&format!("{other}\n{pod}\n")), format!("{POD}/{a}"));
            assert_eq!(read(&format!("{pod}\n{other}\n")), format!("{POD}/{a}"));
        }
        assert_eq!(read(&format!("2:pids:/docker/{a}\n0::/\n")), a);
    }

    /// The result for three lines; asserts that it is the same in any order.
    fn lines(paths: [&str; 3]) -> String {
        let [a, b, c] = paths;
        let orders = [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]];
        let texts = orders.map(|[a, b, c]| format!("3:cpu:{a}\n2:memory:{b}\n0::{c}\n"));
        let results = texts.map(|text| read(&text));
        assert!(results.iter().all(|result| result == &results[0]), "{results:?}");
        results[0].clone()
    }

    #[test]
    fn contradicting_lines() {
        let (a, b) = (id('a'), id('b'));
        let pod = format!("/kubepods/pod{POD}");
        let first = format!("{pod}/{a}");
        // Two pods; two containers of one pod; two containers without a pod.
        assert_eq!(lines([&first, &format!("/kubepods/pod{OTHER}/{a}"), "/"]), "conflict");
        assert_eq!(lines([&first, &format!("{pod}/{b}"), "/"]), POD);
        assert_eq!(lines([&format!("/docker/{a}"), &format!("/docker/{b}"), "/"]), "conflict");
        // A controller that ends at the pod, or has another parent, is no contradiction.
        let colon = format!("/kubepods-pod{}.slice:cri-containerd:{a}", slice(POD));
        assert_eq!(lines([&first, &pod, &colon]), format!("{POD}/{a}"));
    }

    #[test]
    fn lines_that_continue_to_a_nested_pod() {
        let (a, b, c) = (id('a'), id('b'), id('c'));
        let outer = format!("/kubepods/pod{POD}/{a}");
        let inner = format!("{outer}/kubepods/pod{OTHER}/{b}");
        let both = format!("{OTHER}/{b} in {POD}/{a}");
        assert_eq!(lines([&outer, &inner, "/"]), both);
        let sibling = format!("{outer}/kubepods/pod{OTHER}/{c}");
        assert_eq!(lines([&sibling, &inner, "/"]), format!("{OTHER} in {POD}/{a}"));
        let elsewhere = format!("/kubepods/pod{POD}/{c}");
        assert_eq!(lines([&elsewhere, &inner, "/"]), "conflict");
        // The nesting order of two pods matters.
        let inverted = format!("/kubepods/pod{OTHER}/{b}/kubepods/pod{POD}/{a}");
        assert_eq!(lines([&inverted, &inner, "/"]), "conflict");
    }

    /// All ids in a result.
    fn ids_in(placement: &CgroupLocation) -> Vec<String> {
        match placement {
            CgroupLocation::Pod(pods) => pods
                .iter()
                .flat_map(|pod| {
                    let id = pod.container.as_ref().map(ToString::to_string);
                    std::iter::once(pod.uid.to_string()).chain(id)
                })
                .collect(),
            CgroupLocation::Container(id) => vec![id.to_string()],
            CgroupLocation::Host | CgroupLocation::Conflict => Vec::new(),
        }
    }

    /// Texts that resemble cgroup files.
    fn cgroup_like_text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => prop::sample::select(vec![
                "/", ":", "\n", "0::", "-", "_", "pod", "kubepods-pod", ".slice", ".scope", ".mount",
                "conmon-", "docker-", " (deleted)", "..", "k8s.io",
            ]).prop_map(|text| text.as_bytes().to_vec()),
            2 => "[0-9a-f]{8}([-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}".prop_map(String::into_bytes),
            2 => "[0-9a-f]{64}".prop_map(String::into_bytes),
            1 => "[0-9a-fA-F_-]{31,66}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..8),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    fn check_ids_occur_in(text: &[u8]) -> Result<(), TestCaseError> {
        let placement = parse(text);
        if let CgroupLocation::Pod(pods) = &placement {
            prop_assert!(!pods.is_empty());
        }
        let dashed: Vec<u8> =
            text.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
        for name in ids_in(&placement) {
            let found = dashed.windows(name.len()).any(|window| window == name.as_bytes());
            prop_assert!(found, "{} is not in the text", name);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn ids_parsed_from_bytes_occur_in_the_input(
            text in prop::collection::vec(any::<u8>(), 0..512),
        ) {
            check_ids_occur_in(&text)?;
        }

        #[test]
        fn ids_parsed_from_text_occur_in_the_input(text in cgroup_like_text()) {
            check_ids_occur_in(&text)?;
        }

        #[test]
        fn line_order_does_not_matter(text in cgroup_like_text()) {
            let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
            lines.reverse();
            prop_assert_eq!(parse(&text), parse(&lines.join(&b'\n')));
        }
    }
}
