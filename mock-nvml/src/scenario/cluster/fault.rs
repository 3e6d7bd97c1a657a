//! Faults of the servers of a cluster.

use crate::window::Window;

/// A server of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The kubelet's `PodResources` socket.
    Kubelet,
    /// The kubelet's Pods API.
    PodsApi,
    /// The API server.
    Api,
    /// The resource slices of the API server.
    Slices,
    /// The resource claims of the API server.
    Claims,
}

/// The effect of a fault on a server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ServerFault {
    /// It does not exist: no socket, no kubeconfig.
    Absent,
    /// It does not listen.
    Refuse,
    /// It accepts requests and does not respond.
    Hang,
    /// Its responses are malformed.
    Malformed,
    /// 403 or `PERMISSION_DENIED`.
    Denied,
    /// 429 or `RESOURCE_EXHAUSTED`.
    Throttled,
    /// The requested resource version has expired (410).
    Expired,
    /// 500.
    Error,
    /// A streaming list ends with an `ERROR` event, as on an etcd that does not report progress.
    StreamError,
    /// Lists and initial events have a pod that no client can decode, besides the others.
    InvalidObject,
    /// The lists are empty.
    Empty,
    /// The kubelet does not know its pods yet: `FAILED_PRECONDITION`.
    NotReady,
    /// The kubelet knows none of the fields of a mask: `INVALID_ARGUMENT`.
    NoFieldMask,
    /// The kubelet drops the events of watches.
    DropEvents,
    /// The kubelet lists no pods, as right after it was restarted.
    NoPods,
    /// The kubelet lists static pods only, as after a restart until it reaches the API server.
    StaticPods,
    /// It closes connections.
    Close,
    /// It responds after this delay in seconds.
    Slow(f64),
}

/// A fault of a server during a time window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClusterFault {
    pub(crate) server: Server,
    pub(crate) fault: ServerFault,
    pub(crate) during: Window,
}
