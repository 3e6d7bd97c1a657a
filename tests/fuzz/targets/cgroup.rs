//! `/proc/PID/cgroup`.

use std::fmt::Write as _;

use nvml_exporter::host::cgroup::parse;
use nvml_exporter::model::CgroupLocation;

/// Parsed IDs occur in the input, a printed placement parses to the same value, and the order of lines is irrelevant.
pub(crate) fn check(text: &[u8]) {
    let placement = parse(text);
    let dashes: Vec<u8> = text.iter().map(|b| if *b == b'_' { b'-' } else { *b }).collect();
    let is_in_input =
        |name: &str| dashes.windows(name.len()).any(|window| window == name.as_bytes());
    match &placement {
        CgroupLocation::Pod(pods) => {
            assert!(!pods.is_empty());
            for pod in pods {
                assert!(is_in_input(pod.uid.as_str()));
                assert!(pod.container.as_ref().is_none_or(|id| is_in_input(id.as_str())));
            }
        }
        CgroupLocation::Container(id) => assert!(is_in_input(id.as_str())),
        CgroupLocation::Host | CgroupLocation::Conflict => {}
    }
    if let Some(printed) = print(&placement) {
        assert_eq!(parse(printed.as_bytes()), placement, "{printed}");
    }
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    lines.reverse();
    assert_eq!(parse(&lines.join(&b'\n')), placement, "the order of lines");
}

fn print(placement: &CgroupLocation) -> Option<String> {
    let mut path = "0::/".to_owned();
    match placement {
        CgroupLocation::Pod(pods) => {
            for pod in pods.iter().rev() {
                write!(path, "/kubepods/pod{}", pod.uid).unwrap();
                if let Some(id) = &pod.container {
                    write!(path, "/{id}").unwrap();
                }
            }
        }
        CgroupLocation::Container(id) => write!(path, "system.slice/docker-{id}.scope").unwrap(),
        CgroupLocation::Host => {}
        CgroupLocation::Conflict => return None,
    }
    Some(path)
}
