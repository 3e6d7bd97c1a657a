//! The kubelet's Pods API, with the faults of the scenario.

use std::{pin::Pin, rc::Rc};

use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
    cluster::kubelet::{
        GrpcStatus,
        pods_api::{self, EventKind, PodsMethod},
    },
    cluster_servers::{
        byte_stream::ByteStream,
        grpc::{self, GrpcReply, GrpcRequest},
        kubelet::MALFORMED,
        served_state::ServedState,
    },
    scenario::cluster::{Server, ServerFault},
};

const INVALID_ARGUMENT: u8 = 3;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const FAILED_PRECONDITION: u8 = 9;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;

type Sender = mpsc::Sender<Result<Vec<u8>, GrpcStatus>>;

/// Serves one connection until it closes.
pub(super) async fn serve_connection(stream: Pin<Box<dyn ByteStream>>, state: Rc<ServedState>) {
    let call = move |request| respond(Rc::clone(&state), request);
    grpc::serve(stream, call).await;
}

async fn respond(state: Rc<ServedState>, request: GrpcRequest) -> Result<GrpcReply, GrpcStatus> {
    let fault = state.apply_delay(Server::PodsApi).await;
    let (scenario, _) = state.refresh();
    let version = scenario.cluster.as_deref().and_then(|cluster| cluster.pods_api);
    let method = version.and_then(|version| PodsMethod::parse(&request.path, version));
    let unknown = || (UNIMPLEMENTED, format!("unknown method {}", request.path));
    let method = method.ok_or_else(unknown)?;
    if let Some(status) = fault.and_then(|fault| status_of(fault, method, &request)) {
        return Err(status);
    }
    state.count_request("kubelet", &request.path);
    let mask = request.field_mask;
    let pods = state.pods_of_kubelet();
    match method {
        _ if fault == Some(ServerFault::Malformed) && method != PodsMethod::Watch => {
            Ok(GrpcReply::One(MALFORMED.to_vec()))
        }
        PodsMethod::List => Ok(GrpcReply::One(pods_api::list(&pods, mask.as_deref()))),
        PodsMethod::Get => {
            pods_api::get(&pods, &request.message, mask.as_deref()).map(GrpcReply::One)
        }
        PodsMethod::Watch => {
            let (sender, reply) = grpc::stream();
            tokio::task::spawn_local(async move {
                // The error only means that the client has disconnected.
                let _ = send_watch(&state, pods, mask, &sender).await;
            });
            Ok(reply)
        }
    }
}

/// The status with which a server with this fault responds.
fn status_of(fault: ServerFault, method: PodsMethod, request: &GrpcRequest) -> Option<GrpcStatus> {
    let (code, text) = match fault {
        ServerFault::Denied => (PERMISSION_DENIED, "permission denied"),
        // Watches are not subject to the rate limit.
        ServerFault::Throttled if method != PodsMethod::Watch => {
            (RESOURCE_EXHAUSTED, "rejected by rate limit")
        }
        ServerFault::NotReady => (FAILED_PRECONDITION, "the pod sources are not synced yet"),
        ServerFault::NoFieldMask if request.field_mask.is_some() => {
            (INVALID_ARGUMENT, "invalid field mask")
        }
        ServerFault::Error => (INTERNAL, "failed to marshal pod"),
        ServerFault::Absent
        | ServerFault::Refuse
        | ServerFault::Hang
        | ServerFault::Malformed
        | ServerFault::Throttled
        | ServerFault::Expired
        | ServerFault::StreamError
        | ServerFault::InvalidObject
        | ServerFault::Empty
        | ServerFault::NoFieldMask
        | ServerFault::DropEvents
        | ServerFault::NoPods
        | ServerFault::StaticPods
        | ServerFault::Close
        | ServerFault::Slow(_) => return None,
    };
    Some((code, text.to_owned()))
}

/// The client has disconnected.
struct ClientGone;

async fn send_watch(
    state: &ServedState,
    mut pods: Vec<Value>,
    mask: Option<String>,
    sender: &Sender,
) -> Result<(), ClientGone> {
    let mask = mask.as_deref();
    let send = |message: Result<Vec<u8>, GrpcStatus>| async move {
        sender.send(message).await.map_err(|_| ClientGone)
    };
    let mut changes = state.subscribe();
    if state.fault(Server::PodsApi) == Some(ServerFault::Malformed) {
        return send(Ok(MALFORMED.to_vec())).await;
    }
    for pod in &pods {
        send(Ok(pods_api::event(EventKind::Added, Some(pod), mask))).await?;
    }
    send(Ok(pods_api::event(EventKind::InitialSyncComplete, None, mask))).await?;
    loop {
        match state.fault(Server::PodsApi) {
            Some(ServerFault::Hang) => {}
            Some(ServerFault::Malformed) => return send(Ok(MALFORMED.to_vec())).await,
            // A restarted kubelet ends all watches.
            Some(fault @ (ServerFault::NotReady | ServerFault::Error)) => {
                let request =
                    GrpcRequest { path: String::new(), message: Vec::new(), field_mask: None };
                if let Some(status) = status_of(fault, PodsMethod::Watch, &request) {
                    return send(Err(status)).await;
                }
            }
            fault => {
                let now = state.pods_of_kubelet();
                if fault != Some(ServerFault::DropEvents) {
                    for event in pods_api::changes(&pods, &now, mask) {
                        send(Ok(event)).await?;
                    }
                }
                pods = now;
            }
        }
        tokio::select! {
            () = sender.closed() => return Err(ClientGone),
            _ = changes.changed() => {}
        }
    }
}
