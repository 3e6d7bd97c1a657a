//! The kubelet's socket: the `PodResources` service of the scenario.

use std::{pin::Pin, rc::Rc};

use crate::{
    cluster::kubelet::{self, GrpcStatus},
    cluster_servers::{
        byte_stream::ByteStream,
        grpc::{self, GrpcReply, GrpcRequest},
        served_state::ServedState,
    },
    scenario::cluster::{Server, ServerFault},
};

const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNAVAILABLE: u8 = 14;

/// Invalid protobuf: a field longer than the message.
pub(super) const MALFORMED: &[u8] = &[0x0a, 0xff, 0xff, 0x7f, 0x00];

/// Serves one connection until it closes.
pub(super) async fn serve_connection(stream: Pin<Box<dyn ByteStream>>, state: Rc<ServedState>) {
    let call = move |request| respond(Rc::clone(&state), request);
    grpc::serve(stream, call).await;
}

async fn respond(state: Rc<ServedState>, request: GrpcRequest) -> Result<GrpcReply, GrpcStatus> {
    match state.apply_delay(Server::Kubelet).await {
        Some(ServerFault::Denied) => {
            return Err((PERMISSION_DENIED, "permission denied".to_owned()));
        }
        Some(ServerFault::Throttled) => {
            return Err((RESOURCE_EXHAUSTED, "rejected by rate limit".to_owned()));
        }
        Some(ServerFault::Malformed) => return Ok(GrpcReply::One(MALFORMED.to_vec())),
        _ => {}
    }
    let (scenario, now) = state.refresh();
    match scenario.cluster.as_deref() {
        None => Err((UNAVAILABLE, "the scenario has no cluster".to_owned())),
        Some(cluster) => {
            let GrpcRequest { path, message, .. } = request;
            kubelet::call(cluster, now.world, &path, &message).map(GrpcReply::One)
        }
    }
}
