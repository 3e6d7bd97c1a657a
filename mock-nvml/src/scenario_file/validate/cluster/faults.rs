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
    let servers = [
        ("kubelet", Server::Kubelet),
        ("pods_api", Server::PodsApi),
        ("api", Server::Api),
        ("resource_slices", Server::Slices),
        ("resource_claims", Server::Claims),
    ];
    let troubles = [
        ("absent", ServerFault::Absent),
        ("refuse", ServerFault::Refuse),
        ("hang", ServerFault::Hang),
        ("garbage", ServerFault::Malformed),
        ("denied", ServerFault::Denied),
        ("throttled", ServerFault::Throttled),
        ("expired", ServerFault::Expired),
        ("error", ServerFault::Error),
        ("stream_error", ServerFault::StreamError),
        ("invalid_object", ServerFault::InvalidObject),
        ("empty", ServerFault::Empty),
        ("not_ready", ServerFault::NotReady),
        ("no_field_mask", ServerFault::NoFieldMask),
        ("drop_events", ServerFault::DropEvents),
        ("no_pods", ServerFault::NoPods),
        ("static_pods", ServerFault::StaticPods),
        ("close", ServerFault::Close),
        ("slow", ServerFault::Slow(1.0)),
    ];
    let server = parse_word("source", Some(&spec.source), &servers)?.unwrap_or(Server::Api);
    let trouble =
        parse_word("effect", Some(&spec.effect), &troubles)?.unwrap_or(ServerFault::Absent);
    ensure_plausible(server, trouble, spec)?;
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

/// Rejects effects that this server cannot have.
fn ensure_plausible(
    server: Server,
    trouble: ServerFault,
    spec: &ClusterFaultTable,
) -> ValidationResult<()> {
    let of_kubelet = matches!(server, Server::Kubelet | Server::PodsApi);
    let expires = of_kubelet && trouble == ServerFault::Expired;
    ensure(!expires, &spec.effect, || {
        "the kubelet has no watches that could expire: write another effect".into()
    })?;
    let of_pods_api = matches!(
        trouble,
        ServerFault::NotReady | ServerFault::NoFieldMask | ServerFault::DropEvents
    );
    ensure(!of_pods_api || server == Server::PodsApi, &spec.effect, || {
        "only the Pods API does so: write source = \"pods_api\"".into()
    })?;
    let watches = server == Server::Api
        || !matches!(trouble, ServerFault::StreamError | ServerFault::InvalidObject);
    ensure(watches, &spec.effect, || {
        "only the API server lists and watches pods so: write source = \"api\"".into()
    })?;
    let lists = server != Server::Kubelet
        && matches!(trouble, ServerFault::NoPods | ServerFault::StaticPods);
    ensure(!lists, &spec.effect, || {
        "only the kubelet lists pods so after a restart: write source = \"kubelet\"".into()
    })?;
    let connection =
        matches!(trouble, ServerFault::Refuse | ServerFault::Close | ServerFault::Expired);
    ensure(
        !(connection && matches!(server, Server::Slices | Server::Claims)),
        &spec.effect,
        || "only a whole server refuses or ends connections: write another effect".into(),
    )?;
    ensure(trouble != ServerFault::Empty || server == Server::Slices, &spec.effect, || {
        "only lists of resource slices are empty: write source = \"resource_slices\"".into()
    })?;
    Ok(())
}
