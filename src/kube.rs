//! The cluster's knowledge of this node: which pods there are, and who was given which GPU.
//!
//! Three sources are followed, each by one task that publishes an immutable picture and is blind
//! to the others: [`pods`] through the API server's [`watch`] (or [`kubelet_pods`]), assignments of
//! devices through the kubelet's [`pod_resources`], and, where devices are claimed dynamically,
//! [`resource_slices`]. [`allocation`] joins the pictures, without any I/O, to who holds what. No
//! failure empties a picture: it keeps what was said last and says how old that is.

pub mod allocation;
pub mod annotations;
pub mod api;
pub mod assignments;
pub mod device_id;
pub mod event;
pub mod framing;
pub mod kubelet_pods;
pub mod list;
mod node;
pub mod node_label;
pub mod node_name;
pub mod pod;
pub mod pod_resources;
pub mod pods;
pub mod problem;
pub mod quantity;
pub mod resource_slices;
pub mod retention;
pub mod self_review;
pub mod source;
pub mod watch;
