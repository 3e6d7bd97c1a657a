//! The two doors of the cluster: the kubelet's socket and the API server's port.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};

use super::{Error, at, grpc, http, keeper::Keeper};
use crate::{
    scenario::cluster::{Cluster, Server, Trouble},
    world::complain,
};

/// How many connections a server has at once.
const MOST: usize = 256;
/// How long a server waits after a connection that could not be taken, or a door that could not be
/// opened.
const PAUSE: Duration = Duration::from_millis(200);

/// What comes through a door.
pub(super) trait Stream: AsyncRead + AsyncWrite {}
impl<T: AsyncRead + AsyncWrite> Stream for T {}

/// A place where a server listens, or not.
#[derive(Debug)]
pub(super) struct Door {
    server: Server,
    path: PathBuf,
    listener: Option<Listener>,
    /// The port it had, and has again.
    port: u16,
}

#[derive(Debug)]
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// The same, inside the runtime.
enum Ear {
    Unix(tokio::net::UnixListener),
    Tcp(tokio::net::TcpListener),
}

impl Ear {
    fn new(listener: Listener) -> io::Result<Self> {
        match listener {
            Listener::Unix(listener) => {
                tokio::net::UnixListener::from_std(listener).map(Self::Unix)
            }
            Listener::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Self::Tcp),
        }
    }

    async fn accept(&self) -> io::Result<Pin<Box<dyn Stream>>> {
        Ok(match self {
            Self::Unix(listener) => Box::pin(listener.accept().await?.0),
            Self::Tcp(listener) => Box::pin(listener.accept().await?.0),
        })
    }
}

impl Door {
    /// A door that is shut.
    pub(super) fn new(server: Server, home: &Path) -> Self {
        Self { server, path: Self::path(server, home), listener: None, port: 0 }
    }

    /// The file by which clients find a server.
    pub(super) fn path(server: Server, home: &Path) -> PathBuf {
        match server {
            Server::Kubelet => home.join("pod-resources/kubelet.sock"),
            Server::Api => home.join("kubeconfig"),
        }
    }

    /// Opens or shuts it as its cluster wants at world time `time`.
    pub(super) fn turn(&mut self, cluster: Option<&Cluster>, time: f64) -> Result<(), Error> {
        let trouble = match cluster {
            None => Some(Trouble::Absent),
            Some(cluster) => cluster.trouble(self.server, time),
        };
        match trouble {
            Some(Trouble::Absent) => {
                self.listener = None;
                self.remove()
            }
            // Somebody has been there: the file is, and nobody listens.
            Some(Trouble::Refuse) => {
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
        match self.server {
            Server::Kubelet => {
                let directory = self.path.parent().unwrap_or(&self.path);
                fs::create_dir_all(directory).map_err(at(directory))?;
                // Whoever sees the socket is let in: it is put there when somebody listens.
                let fresh = self.path.with_extension("new");
                super::logs::gone(fs::remove_file(&fresh)).map_err(at(&fresh))?;
                let listener = UnixListener::bind(&fresh).map_err(at(&fresh))?;
                listener.set_nonblocking(true).map_err(at(&fresh))?;
                fs::rename(&fresh, &self.path).map_err(at(&self.path))?;
                self.listener = Some(Listener::Unix(listener));
            }
            Server::Api => {
                let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
                // Another process may have taken the port in the meantime.
                let listener = bind(self.port).or_else(|_| bind(0)).map_err(Error::Port)?;
                listener.set_nonblocking(true).map_err(Error::Port)?;
                self.port = listener.local_addr().map_err(Error::Port)?.port();
                self.write(&kubeconfig(self.port))?;
                self.listener = Some(Listener::Tcp(listener));
            }
        }
        Ok(())
    }

    /// In one step, so that no reader meets half of it.
    fn write(&self, text: &str) -> Result<(), Error> {
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, text).map_err(at(&fresh))?;
        fs::rename(&fresh, &self.path).map_err(at(&self.path))
    }

    fn remove(&self) -> Result<(), Error> {
        super::logs::gone(fs::remove_file(&self.path)).map_err(at(&self.path))
    }

    /// Serves who comes, for ever.
    pub(super) async fn keep(mut self, keeper: Rc<Keeper>) {
        let mut changes = keeper.changes();
        let mut connections = JoinSet::new();
        let mut ear = None;
        let mut shut = None;
        loop {
            let trouble = keeper.trouble(self.server);
            if shut != Some(trouble) {
                shut = Some(trouble);
                if matches!(trouble, Some(Trouble::Absent | Trouble::Refuse | Trouble::Close)) {
                    connections.abort_all();
                }
                if matches!(trouble, Some(Trouble::Absent | Trouble::Refuse)) {
                    ear = None;
                }
                if ear.is_none() {
                    ear = self.listen(&keeper);
                }
                if ear.is_none() && !matches!(trouble, Some(Trouble::Absent | Trouble::Refuse)) {
                    shut = None;
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            }
            let room = connections.len() < MOST;
            tokio::select! {
                stream = accept(ear.as_ref()), if room => match stream {
                    Ok(_) if trouble == Some(Trouble::Close) => {}
                    Ok(stream) => {
                        let keeper = Rc::clone(&keeper);
                        match self.server {
                            Server::Kubelet => connections.spawn_local(grpc::connection(stream, keeper)),
                            Server::Api => connections.spawn_local(http::connection(stream, keeper)),
                        };
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
                _ = changes.changed() => {}
                Some(_) = connections.join_next() => {}
            }
        }
    }

    fn listen(&mut self, keeper: &Keeper) -> Option<Ear> {
        let (scenario, now) = keeper.refresh();
        if let Err(error) = self.turn(scenario.cluster.as_deref(), now.world) {
            complain(&error);
        }
        Ear::new(self.listener.take()?).ok()
    }
}

/// The next one to come, if anybody listens.
async fn accept(ear: Option<&Ear>) -> io::Result<Pin<Box<dyn Stream>>> {
    match ear {
        Some(ear) => ear.accept().await,
        None => std::future::pending().await,
    }
}

fn kubeconfig(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: mock\nclusters:\n- name: mock\n  cluster:\n    \
         server: http://127.0.0.1:{port}\ncontexts:\n- name: mock\n  context:\n    cluster: mock\n    \
         user: mock\nusers:\n- name: mock\n  user: {{}}\n"
    )
}
