//! Decision tables of attribution: the family of a process, and the 0 of an idle container.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use nvml_exporter::attribute::verdict::{
    AllocationEvidence, DeviceEvidence, HolderState, IdleEvidence, MpsClients, ProcessEvidence,
    Verdict, idle, verdict,
};
use nvml_exporter::model::{AllocateMode, ContainerIdentity, Owner, PodRef, Unresolved, ZeroDoubt};
use nvml_exporter::sample::unlisted_use::UnlistedUse;

use crate::readme::compare_section;

const DEVICE: DeviceEvidence = DeviceEvidence {
    mps_clients: MpsClients::None,
    lists_all_processes: true,
    unresolved_process: false,
    unlisted_use: None,
};
const PROCESS: ProcessEvidence = ProcessEvidence { mps_server: false, settled: true };
const IDLE: IdleEvidence =
    IdleEvidence { state: HolderState::Running, listed_since: true, works_elsewhere: false };
const ALLOCATIONS: [(&str, AllocationEvidence); 6] = [
    ("allocated to the pod", AllocationEvidence::Allocated(AllocateMode::Exclusive)),
    ("known, without this device", AllocationEvidence::NotAllocated),
    ("unknown", AllocationEvidence::Unknown),
    ("source has not responded", AllocationEvidence::Pending),
    ("no source", AllocationEvidence::NoSource),
    ("no cluster", AllocationEvidence::NoCluster),
];

fn container() -> Owner {
    let pod = PodRef { uid: "u".into(), namespace: "team".into(), name: "train".into() };
    Owner::Container(ContainerIdentity { pod, name: "main".into() })
}

/// All kinds of processes: description, evidence, owner, device.
fn processes() -> Vec<(String, ProcessEvidence, Owner, DeviceEvidence)> {
    let new = ProcessEvidence { settled: false, ..PROCESS };
    let server = ProcessEvidence { mps_server: true, ..PROCESS };
    let clients = DeviceEvidence { mps_clients: MpsClients::Listed, ..DEVICE };
    let mut all = vec![
        ("container of a pod".to_owned(), PROCESS, container(), DEVICE),
        ("host".to_owned(), PROCESS, Owner::Host, DEVICE),
        ("container without a pod, new".to_owned(), new, Owner::NonPodContainer, DEVICE),
        ("container without a pod".to_owned(), PROCESS, Owner::NonPodContainer, DEVICE),
        ("MPS server of the host".to_owned(), server, Owner::Host, DEVICE),
        ("MPS server of a pod, with clients".to_owned(), server, container(), clients),
        ("MPS server of a pod, without clients".to_owned(), server, container(), DEVICE),
    ];
    all.extend(
        Unresolved::ALL
            .into_iter()
            .filter(|r| *r != Unresolved::MpsServer)
            .map(|r| (format!("unknown: `{}`", r.label()), PROCESS, Owner::Unknown(r), DEVICE)),
    );
    all
}

fn cell(verdict: Verdict) -> String {
    match verdict {
        Verdict::Process(mode) => format!("PROCESS, `{}`", mode.label()),
        Verdict::Illegal => "ILLEGAL".to_owned(),
        Verdict::Withheld(reason) => format!("withheld: `{}`", reason.label()),
    }
}

/// The decision table of docs/attribution.md.
fn verdict_table() -> String {
    let mut table = "| owner of the process |".to_owned();
    for (name, _) in ALLOCATIONS {
        write!(table, " {name} |").unwrap();
    }
    writeln!(table, "\n|---|{}", "---|".repeat(ALLOCATIONS.len())).unwrap();
    for (name, process, owner, device) in processes() {
        write!(table, "| {name} |").unwrap();
        for (_, allocation) in ALLOCATIONS {
            // Only a container of a pod has allocations of its own.
            let can_occur = matches!(owner, Owner::Container(_))
                || !matches!(
                    allocation,
                    AllocationEvidence::Allocated(_) | AllocationEvidence::NotAllocated
                );
            let verdict = cell(verdict(process, &owner, allocation, device));
            write!(table, " {} |", if can_occur { &verdict } else { "–" }).unwrap();
        }
        table.push('\n');
    }
    table
}

fn doubtful() -> Vec<(ZeroDoubt, IdleEvidence, DeviceEvidence)> {
    let device = |doubt, device| (doubt, IDLE, device);
    let container = |doubt, container| (doubt, container, DEVICE);
    let unlisted = |kind| DeviceEvidence { unlisted_use: Some(kind), ..DEVICE };
    vec![
        device(ZeroDoubt::HiddenProcesses, DeviceEvidence { lists_all_processes: false, ..DEVICE }),
        device(ZeroDoubt::UnresolvedProcess, DeviceEvidence { unresolved_process: true, ..DEVICE }),
        device(ZeroDoubt::UnlistedUtilization, unlisted(UnlistedUse::Utilization)),
        device(ZeroDoubt::UnlistedFramebuffer, unlisted(UnlistedUse::Framebuffer)),
        device(ZeroDoubt::MpsClients, DeviceEvidence { mps_clients: MpsClients::Hidden, ..DEVICE }),
        container(
            ZeroDoubt::UnconfirmedPod,
            IdleEvidence { state: HolderState::Unconfirmed, ..IDLE },
        ),
        container(ZeroDoubt::NotRunning, IdleEvidence { state: HolderState::NotRunning, ..IDLE }),
        container(ZeroDoubt::StaleProcessList, IdleEvidence { listed_since: false, ..IDLE }),
        container(ZeroDoubt::OtherDevice, IdleEvidence { works_elsewhere: true, ..IDLE }),
    ]
}

#[test]
fn zero_needs_all_evidence() {
    assert_eq!(idle(IDLE, DEVICE), Ok(()));
    for (doubt, container, device) in doubtful() {
        assert_eq!(idle(container, device), Err(doubt));
    }
    let found: Vec<_> = doubtful().into_iter().map(|(doubt, ..)| doubt).collect();
    assert_eq!(ZeroDoubt::ALL[1..], found, "each reason is an input of idle()");
}

#[test]
fn reasons_have_distinct_labels() {
    let labels: BTreeSet<_> = ZeroDoubt::ALL.map(ZeroDoubt::label).into();
    assert_eq!(labels.len(), ZeroDoubt::ALL.len());
}

#[test]
fn illegal_is_only_what_certainly_has_no_allocation() {
    for (name, process, owner, device) in processes() {
        for (_, allocation) in ALLOCATIONS {
            if verdict(process, &owner, allocation, device) != Verdict::Illegal {
                continue;
            }
            let certain = match owner {
                Owner::Container(_) => allocation == AllocationEvidence::NotAllocated,
                Owner::Host => !process.mps_server,
                Owner::NonPodContainer => process.settled,
                Owner::Unknown(_) => false,
            };
            assert!(certain, "{name}, {allocation:?}");
        }
    }
}

#[test]
fn documentation_has_the_decision_table() {
    compare_section("docs/attribution.md", "verdicts", &verdict_table());
}
