//! Validation of the faults of the kubelet and the API server.

use crate::{
    scenario::cluster::{ClusterFault, Server, ServerFault},
    scenario_file::{
        error::{SpannedError, ValidationResult, ensure},
        tables::ClusterFaultTable,
        validate::{values::parse_word, windows::parse_window},
    },
};

pub(super) fn check(spec: &ClusterFaultTable) -> ValidationResult<ClusterFault> {
    let servers = [("kubelet", Server::Kubelet), ("api", Server::Api)];
    let troubles = [
        ("absent", ServerFault::Absent),
        ("refuse", ServerFault::Refuse),
        ("hang", ServerFault::Hang),
        ("garbage", ServerFault::Malformed),
        ("denied", ServerFault::Denied),
        ("throttled", ServerFault::Throttled),
        ("expired", ServerFault::Expired),
        ("no_pods", ServerFault::NoPods),
        ("static_pods", ServerFault::StaticPods),
        ("close", ServerFault::Close),
        ("slow", ServerFault::Slow(1.0)),
    ];
    let server = parse_word("source", Some(&spec.source), &servers)?.unwrap_or(Server::Api);
    let trouble =
        parse_word("effect", Some(&spec.effect), &troubles)?.unwrap_or(ServerFault::Absent);
    let expires = server == Server::Kubelet && trouble == ServerFault::Expired;
    ensure(!expires, &spec.effect, || {
        "the kubelet has no watches that could expire: write another effect".into()
    })?;
    let lists =
        server == Server::Api && matches!(trouble, ServerFault::NoPods | ServerFault::StaticPods);
    ensure(!lists, &spec.effect, || {
        "only the kubelet lists pods so after a restart: write source = \"kubelet\"".into()
    })?;
    let trouble = match (trouble, &spec.delay) {
        (ServerFault::Slow(_), Some(delay)) => {
            let seconds = *delay.get_ref();
            let error = || format!("delay = {seconds} is out of range: write 0 to 3600 seconds");
            ensure((0.0..=3_600.0).contains(&seconds), delay, error)?;
            ServerFault::Slow(seconds)
        }
        (_, Some(delay)) => {
            return Err(SpannedError::new(
                delay.span(),
                "delay is a key of effect \"slow\" only: remove it",
            ));
        }
        (trouble, None) => trouble,
    };
    Ok(ClusterFault {
        server,
        fault: trouble,
        during: parse_window(spec.from.as_ref(), spec.to.as_ref())?,
    })
}
