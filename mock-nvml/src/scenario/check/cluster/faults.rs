//! Validation of the faults of the cluster's servers.

use super::one_of;
use crate::scenario::{
    check::during,
    cluster::{ClusterFault, Server, Trouble},
    complaint::{Checked, Flaw, ensure},
    file::ClusterFaultTable,
};

/// The fault of a table.
pub(super) fn check(said: &ClusterFaultTable) -> Checked<ClusterFault> {
    let servers = [("kubelet", Server::Kubelet), ("api", Server::Api)];
    let troubles = [
        ("absent", Trouble::Absent),
        ("refuse", Trouble::Refuse),
        ("hang", Trouble::Hang),
        ("garbage", Trouble::Garbage),
        ("denied", Trouble::Denied),
        ("throttled", Trouble::Throttled),
        ("expired", Trouble::Expired),
        ("no_pods", Trouble::NoPods),
        ("static_pods", Trouble::StaticPods),
        ("close", Trouble::Close),
        ("slow", Trouble::Slow(1.0)),
    ];
    let server = one_of("source", Some(&said.source), &servers)?.unwrap_or(Server::Api);
    let trouble = one_of("effect", Some(&said.effect), &troubles)?.unwrap_or(Trouble::Absent);
    let expires = server == Server::Kubelet && trouble == Trouble::Expired;
    ensure(!expires, &said.effect, || {
        "the kubelet has no history that could expire: use another effect".into()
    })?;
    let lists = server == Server::Api && matches!(trouble, Trouble::NoPods | Trouble::StaticPods);
    ensure(!lists, &said.effect, || {
        "only the kubelet lists pods so after a restart: write source = \"kubelet\"".into()
    })?;
    let trouble = match (trouble, &said.delay) {
        (Trouble::Slow(_), Some(delay)) => {
            let seconds = *delay.get_ref();
            let mend = || format!("delay = {seconds}: give 0 to 3600 seconds");
            ensure((0.0..=3_600.0).contains(&seconds), delay, mend)?;
            Trouble::Slow(seconds)
        }
        (_, Some(delay)) => {
            return Err(Flaw::new(delay.span(), "only \"slow\" takes a delay: leave it out"));
        }
        (trouble, None) => trouble,
    };
    Ok(ClusterFault { server, trouble, during: during(said.from.as_ref(), said.to.as_ref())? })
}
