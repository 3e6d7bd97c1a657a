//! gRPC client of the kubelet's `PodResources` service.

use std::path::Path;
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use tonic::Request;

use super::messages::{
    Allocatable, AllocatableResourcesResponse, Empty, ListPodResourcesResponse, PodResourcesList,
};
use crate::kube::kubelet_socket::KubeletSocket;
use crate::kube::request_error::RequestError;
use crate::kube::source::FailureReason;
use crate::policy;

/// A connection to the service of one kubelet process.
#[derive(Debug)]
pub struct KubeletClient(KubeletSocket);

impl KubeletClient {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// As for [`KubeletSocket::connect`].
    pub async fn connect(path: &Path, timeout: Duration) -> Result<Self, RequestError> {
        KubeletSocket::connect(path, policy::POD_RESOURCES_MAX, timeout).await.map(Self)
    }

    /// Whether `path` is still the socket file of this connection.
    #[must_use]
    pub fn is_current(&self, path: &Path) -> bool {
        self.0.is_current(path)
    }

    /// Calls `List`: the pods, and the containers with allocated devices.
    ///
    /// # Errors
    /// No response, an error status, or a response that cannot be decoded.
    pub async fn list(&mut self, timeout: Duration) -> Result<PodResourcesList, RequestError> {
        let path = PathAndQuery::from_static("/v1.PodResourcesLister/List");
        let list: ListPodResourcesResponse =
            self.0.call(path, Request::new(Empty {}), timeout).await?;
        list.into_list().map_err(|e| {
            RequestError::new(
                FailureReason::Garbage,
                format!("List: the response cannot be decoded: {e}"),
            )
        })
    }

    /// Calls `GetAllocatableResources`: the devices that can be allocated.
    ///
    /// # Errors
    /// No response, an error status, or a response that cannot be decoded.
    pub async fn allocatable(&mut self, timeout: Duration) -> Result<Allocatable, RequestError> {
        let path = PathAndQuery::from_static("/v1.PodResourcesLister/GetAllocatableResources");
        let response: AllocatableResourcesResponse =
            self.0.call(path, Request::new(Empty {}), timeout).await?;
        Ok(response.allocatable())
    }
}
