//! `/proc/<pid>/cgroup`.

use std::fmt::Write as _;

use nvml_exporter::host::cgroup::parse;
use nvml_exporter::model::Placement;

/// An answer names only what is there, and printed as a cgroup it is read as before.
pub(crate) fn check(text: &[u8]) {
    let placement = parse(text);
    let dashes: Vec<u8> = text.iter().map(|b| if *b == b'_' { b'-' } else { *b }).collect();
    let is_there = |name: &str| dashes.windows(name.len()).any(|window| window == name.as_bytes());
    match &placement {
        Placement::Pod(pods) => {
            assert!(!pods.is_empty());
            for pod in pods {
                assert!(is_there(pod.uid.as_str()));
                assert!(pod.container.as_ref().is_none_or(|id| is_there(id.as_str())));
            }
        }
        Placement::Container(id) => assert!(is_there(id.as_str())),
        Placement::Host | Placement::Conflict => {}
    }
    if let Some(printed) = print(&placement) {
        assert_eq!(parse(printed.as_bytes()), placement, "{printed}");
    }
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    lines.reverse();
    assert_eq!(parse(&lines.join(&b'\n')), placement, "the order of lines");
}

fn print(placement: &Placement) -> Option<String> {
    let mut path = "0::/".to_owned();
    match placement {
        Placement::Pod(pods) => {
            for pod in pods.iter().rev() {
                write!(path, "/kubepods/pod{}", pod.uid).unwrap();
                if let Some(id) = &pod.container {
                    write!(path, "/{id}").unwrap();
                }
            }
        }
        Placement::Container(id) => write!(path, "system.slice/docker-{id}.scope").unwrap(),
        Placement::Host => {}
        Placement::Conflict => return None,
    }
    Some(path)
}
