//! Listening sockets of the two servers: the Unix sockets and the TCP port of the kubelet, and the TCP port of
//! the API server.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{
    cluster_servers::{
        byte_stream::ByteStream,
        error::{Error, file_error},
        http, kubelet, logs, pods_api,
        served_state::ServedState,
    },
    scenario::cluster::{Cluster, Server, ServerFault},
    stderr::log_error,
};

/// Concurrent connections per server.
const MAX_CONNECTIONS: usize = 256;
/// Delay before a failed accept or listen is retried.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// What listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// The kubelet's `PodResources` service.
    PodResources,
    /// The kubelet's Pods API.
    PodsApi,
    /// The kubelet's HTTP port, with its pods.
    KubeletPods,
    /// The API server.
    Api,
}

impl Endpoint {
    pub(super) const ALL: [Self; 4] =
        [Self::PodResources, Self::PodsApi, Self::KubeletPods, Self::Api];

    fn server(self) -> Server {
        match self {
            Self::PodResources | Self::KubeletPods => Server::Kubelet,
            Self::PodsApi => Server::PodsApi,
            Self::Api => Server::Api,
        }
    }

    /// The file through which clients find it.
    pub(super) fn path(self, home: &Path) -> PathBuf {
        match self {
            Self::PodResources => home.join("pod-resources/kubelet.sock"),
            Self::PodsApi => home.join("pods-api/pods-api.sock"),
            Self::KubeletPods => home.join("kubelet-url"),
            Self::Api => home.join("kubeconfig"),
        }
    }
}

/// The socket of one endpoint, listening or not.
#[derive(Debug)]
pub(super) struct ServerSocket {
    endpoint: Endpoint,
    path: PathBuf,
    listener: Option<Listener>,
    /// The last TCP port, reused when the server listens again; 0 before the first time.
    port: u16,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A [`Listener`] inside the async runtime.
enum AsyncListener {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

impl AsyncListener {
    fn new(listener: Listener) -> io::Result<Self> {
        match listener {
            Listener::Unix(listener) => {
                tokio::net::UnixListener::from_std(listener).map(Self::Unix)
            }
            Listener::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Self::Tcp),
        }
    }

    async fn accept(&self) -> io::Result<Pin<Box<dyn ByteStream>>> {
        Ok(match self {
            Self::Unix(listener) => Box::pin(listener.accept().await?.0),
            Self::Tcp(listener) => Box::pin(listener.accept().await?.0),
        })
    }
}

impl ServerSocket {
    /// A socket that does not listen yet.
    pub(super) fn new(endpoint: Endpoint, home: &Path) -> Self {
        Self { endpoint, path: endpoint.path(home), listener: None, port: 0 }
    }

    /// Opens or closes the socket according to the faults of the cluster at world time `time`.
    pub(super) fn apply_fault(
        &mut self,
        cluster: Option<&Cluster>,
        time: f64,
    ) -> Result<(), Error> {
        let fault = match cluster {
            None => Some(ServerFault::Absent),
            Some(cluster) => cluster.fault_at(self.endpoint.server(), time),
        };
        match fault {
            Some(ServerFault::Absent) => {
                self.listener = None;
                self.remove_file()
            }
            // The file exists, but connections are refused.
            Some(ServerFault::Refuse) => {
                self.open()?;
                self.listener = None;
                Ok(())
            }
            _ => self.open(),
        }
    }

    fn open(&mut self) -> Result<(), Error> {
        if self.listener.is_some() {
            return Ok(());
        }
        match self.endpoint {
            Endpoint::PodResources | Endpoint::PodsApi => {
                let directory = self.path.parent().unwrap_or(&self.path);
                fs::create_dir_all(directory).map_err(file_error(directory))?;
                // The socket gets its final name only once it listens.
                let temporary = self.path.with_extension("new");
                logs::remove_file(&temporary)?;
                let listener = UnixListener::bind(&temporary).map_err(file_error(&temporary))?;
                listener.set_nonblocking(true).map_err(file_error(&temporary))?;
                fs::rename(&temporary, &self.path).map_err(file_error(&self.path))?;
                self.listener = Some(Listener::Unix(listener));
            }
            Endpoint::KubeletPods | Endpoint::Api => {
                let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
                // Another process may use the old port by now.
                let listener = bind(self.port).or_else(|_| bind(0)).map_err(Error::Port)?;
                listener.set_nonblocking(true).map_err(Error::Port)?;
                self.port = listener.local_addr().map_err(Error::Port)?.port();
                let url = format!("http://127.0.0.1:{}", self.port);
                self.write_file(&if self.endpoint == Endpoint::Api {
                    kubeconfig(&url)
                } else {
                    url
                })?;
                self.listener = Some(Listener::Tcp(listener));
            }
        }
        Ok(())
    }

    /// Replaces the file atomically, so that no client reads a part of it.
    fn write_file(&self, text: &str) -> Result<(), Error> {
        let temporary = self.path.with_extension("new");
        fs::write(&temporary, text).map_err(file_error(&temporary))?;
        fs::rename(&temporary, &self.path).map_err(file_error(&self.path))
    }

    fn remove_file(&self) -> Result<(), Error> {
        logs::remove_file(&self.path)
    }

    /// Accepts and serves connections until the task is dropped.
    pub(super) async fn serve(mut self, state: Rc<ServedState>) {
        let mut changes = state.subscribe();
        let mut connections = JoinSet::new();
        let mut listener = None;
        let mut applied = None;
        loop {
            let fault = state.fault(self.endpoint.server());
            if applied != Some(fault) {
                applied = Some(fault);
                if matches!(
                    fault,
                    Some(ServerFault::Absent | ServerFault::Refuse | ServerFault::Close)
                ) {
                    connections.abort_all();
                }
                if matches!(fault, Some(ServerFault::Absent | ServerFault::Refuse)) {
                    listener = None;
                }
                if listener.is_none() {
                    listener = self.listen(&state);
                }
                if listener.is_none()
                    && !matches!(fault, Some(ServerFault::Absent | ServerFault::Refuse))
                {
                    applied = None;
                    tokio::time::sleep(RETRY_DELAY).await;
                    continue;
                }
            }
            let has_room = connections.len() < MAX_CONNECTIONS;
            tokio::select! {
                stream = accept(listener.as_ref()), if has_room => match stream {
                    Ok(_) if fault == Some(ServerFault::Close) => {}
                    Ok(stream) => {
                        let state = Rc::clone(&state);
                        match self.endpoint {
                            Endpoint::PodResources => {
                                connections.spawn_local(kubelet::serve_connection(stream, state))
                            }
                            Endpoint::PodsApi => {
                                connections.spawn_local(pods_api::serve_connection(stream, state))
                            }
                            Endpoint::KubeletPods => {
                                connections.spawn_local(http::serve_kubelet(stream, state))
                            }
                            Endpoint::Api => {
                                connections.spawn_local(http::serve_connection(stream, state))
                            }
                        };
                    }
                    Err(_) => tokio::time::sleep(RETRY_DELAY).await,
                },
                _ = changes.changed() => {}
                Some(_) = connections.join_next() => {}
            }
        }
    }

    fn listen(&mut self, state: &ServedState) -> Option<AsyncListener> {
        let (scenario, now) = state.refresh();
        if let Err(error) = self.apply_fault(scenario.cluster.as_deref(), now.world) {
            log_error(&error);
        }
        AsyncListener::new(self.listener.take()?).ok()
    }
}

/// The next connection; pending for ever without a listener.
async fn accept(listener: Option<&AsyncListener>) -> io::Result<Pin<Box<dyn ByteStream>>> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

fn kubeconfig(url: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: mock\nclusters:\n- name: mock\n  cluster:\n    \
         server: {url}\ncontexts:\n- name: mock\n  context:\n    cluster: mock\n    \
         user: mock\nusers:\n- name: mock\n  user: {{}}\n"
    )
}
