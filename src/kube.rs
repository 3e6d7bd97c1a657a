//! The pods of this node and the devices that their containers are allocated.
//!
//! Several sources are read, each by one task that publishes immutable snapshots and is independent
//! of the others: [`pods`] through one of the [`pod_sources`] (the kubelet's [`pods_api`], the API
//! server's [`watch`] or [`kubelet_pods`]), device assignments through the kubelet's [`pod_resources`], and, where dynamic resource allocation
//! (DRA) is used, [`resource_slices`] and [`resource_claims`]. [`allocation`] joins the snapshots without I/O. A source
//! that fails keeps its last snapshot and reports its age.

pub mod address;
pub mod allocation;
pub mod annotations;
pub mod api;
pub mod assignments;
pub mod device_id;
pub mod endpoint;
pub mod json_stream;
pub mod kubelet_pods;
pub mod kubelet_socket;
mod node_event;
pub mod node_exists;
pub mod node_label;
pub mod node_name;
pub mod pod;
pub mod pod_feed;
pub mod pod_list;
pub mod pod_resources;
pub mod pod_sources;
pub mod pods;
pub mod pods_api;
pub mod problem;
pub mod quantity;
pub mod request_error;
pub mod resource_claims;
pub mod resource_slices;
pub mod retention;
pub mod self_review;
pub mod sharing;
pub mod source;
pub mod watch;
pub mod watch_event;
pub mod watch_timings;
