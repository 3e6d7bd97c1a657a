//! Where the API server, or the kubelet instead of it, is configured.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;

use kube::client::Client;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::endpoint::{self, Endpoint};
use super::request_error::RequestError;
use super::source::FailureReason;
use crate::policy;

/// Reads of configurations at a time: as many threads wait at most for a mount that hangs.
static READS: Semaphore = Semaphore::const_new(4);

/// The server that pods are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The API server of the cluster that this pod runs in, with the pod's service account.
    InCluster,
    /// The API server of the current context of a kubeconfig file.
    Kubeconfig(PathBuf),
    /// The kubelet of this node.
    Kubelet(Endpoint),
}

impl Address {
    /// A client with the present credentials, which it keeps: a token is valid for longer than a watch lasts.
    ///
    /// # Errors
    /// A file, URL or credential cannot be used.
    pub async fn client(&self) -> Result<Client, RequestError> {
        self.read_in_time(|address| async move { address.new_client().await }).await
    }

    /// The URL of the server.
    ///
    /// # Errors
    /// A file, URL or credential cannot be used.
    pub async fn server_url(&self) -> Result<String, RequestError> {
        let config =
            self.read_in_time(|address| async move { address.read_config().await }).await?;
        Ok(config.cluster_url.to_string())
    }

    /// What `read` returns. The files of the operator may be on a mount that hangs: they are read on a thread
    /// that nothing waits for longer than [`policy::KUBE_FILES_TIMEOUT`].
    async fn read_in_time<T, F>(
        &self,
        read: impl FnOnce(Self) -> F + Send + 'static,
    ) -> Result<T, RequestError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, RequestError>>,
    {
        let address = self.clone();
        if *self == Self::InCluster {
            return read(address).await;
        }
        let read = async {
            let permit = READS.acquire().await;
            let runtime = Handle::current();
            spawn_blocking(move || {
                let _permit = permit;
                runtime.block_on(read(address))
            })
            .await
        };
        match timeout(policy::KUBE_FILES_TIMEOUT, read).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => {
                Err(RequestError::config(format!("{self}: not read ({error})"), "check the file"))
            }
            Err(_) => {
                let message = format!("{self}: the file system does not respond");
                Err(RequestError::new(FailureReason::Timeout, message))
            }
        }
    }

    async fn new_client(&self) -> Result<Client, RequestError> {
        if let Self::Kubelet(kubelet) = self {
            return kubelet.client();
        }
        let config = self.read_config().await?;
        if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
            return Err(RequestError::config(
                format!(
                    "{self}: the user needs a credential plugin, and the exporter runs no programs"
                ),
                "use a kubeconfig with a token or a client certificate",
            ));
        }
        endpoint::new_client(config, &self.to_string(), "")
    }

    async fn read_config(&self) -> Result<kube::Config, RequestError> {
        match self {
            Self::InCluster => kube::Config::incluster().map_err(|e| {
                RequestError::config(
                    format!("the in-cluster configuration cannot be read: {e}"),
                    "pass --kubeconfig, or run as a pod with a service account token",
                )
            }),
            Self::Kubeconfig(path) => {
                let unusable = |e: KubeconfigError| {
                    let reason = kubeconfig_error(&e);
                    RequestError::config(
                        format!("{self}: {reason}"),
                        "use a file that kubectl accepts",
                    )
                };
                let file = Kubeconfig::read_from(path).map_err(unusable)?;
                let options = KubeConfigOptions::default();
                kube::Config::from_custom_kubeconfig(file, &options).await.map_err(unusable)
            }
            Self::Kubelet(kubelet) => kubelet.config(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InCluster => f.write_str("service account"),
            Self::Kubeconfig(path) => write!(f, "--kubeconfig {}", path.display()),
            Self::Kubelet(kubelet) => f.write_str(&kubelet.url),
        }
    }
}

fn kubeconfig_error(error: &KubeconfigError) -> String {
    // The text of the first variant contains the path a second time, in debug format; that of the
    // second contains lines of the file, which has credentials.
    if let KubeconfigError::ReadConfig(cause, _) = error {
        cause.to_string()
    } else if let KubeconfigError::Parse(cause) = error {
        let place = cause.location().map_or_else(String::new, |location| {
            format!("line {}, column {}: ", location.line(), location.column())
        });
        format!("{place}this is not the YAML of a kubeconfig")
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::source::FailureReason;

    #[tokio::test]
    async fn error_of_an_unreadable_kubeconfig_contains_its_path() {
        let fault = Address::Kubeconfig("/no/such".into()).client().await.err().unwrap();
        assert_eq!(fault.reason, FailureReason::Config);
        assert!(fault.to_string().contains("--kubeconfig /no/such"), "{fault}");
    }

    #[tokio::test]
    async fn error_of_an_invalid_kubeconfig_contains_none_of_its_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        for text in ["users:\n- user: {token: SECRET\n  bad: [", "users: SECRET\n", "SECRET"] {
            std::fs::write(&path, text).unwrap();
            let fault = Address::Kubeconfig(path.clone()).client().await.err().unwrap();
            let message = fault.to_string();
            assert!(!message.contains("SECRET"), "{message}");
            assert!(message.contains("line 1") || message.contains("line 3"), "{message}");
        }
    }

    #[tokio::test]
    async fn kubeconfig_with_a_credential_plugin_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
            clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}]\n\
            users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/false}}}]\n\
            contexts: [{name: c, context: {cluster: k, user: u}}]\n";
        std::fs::write(&path, text).unwrap();
        let fault = Address::Kubeconfig(path).client().await.err().unwrap();
        assert!(fault.problem.message.contains("the exporter runs no programs"), "{fault}");
    }
}
