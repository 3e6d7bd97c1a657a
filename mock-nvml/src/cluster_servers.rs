//! The servers of the cluster: one thread, its sockets, and their files in the mock environment.
//!
//! - `pod-resources/kubelet.sock`: the kubelet's `PodResources` service, gRPC;
//! - `pods-api/pods-api.sock`: the kubelet's Pods API, gRPC, if the scenario has it;
//! - `kubeconfig`: address of the API server; written once the server listens;
//! - `kubelet-url`: address of the kubelet's HTTP port; written once it listens;
//! - `pods-log/`, `containers-log/`: see [`logs`].
//!
//! If several processes use one mock environment, the one that holds the lock on `cluster.lock` serves.

mod byte_stream;
mod error;
pub(crate) mod grpc;
mod http;
mod kubelet;
mod logs;
mod pods_api;
mod reply;
mod served_state;
mod server_socket;

use std::{
    fs::{File, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::{
    cluster_servers::{
        error::{Error, file_error},
        served_state::ServedState,
        server_socket::{Endpoint, ServerSocket},
    },
    stderr::log_error,
    world::World,
};

const LOCK_FILE: &str = "cluster.lock";
/// Interval at which another process retries the lock.
const LOCK_RETRY: Duration = Duration::from_millis(500);

/// Starts the servers of the cluster, once the scenario of the mock environment has one.
pub(crate) fn start_if_pending(world: &'static World) {
    static STARTED: AtomicBool = AtomicBool::new(false);
    if let Some(home) = world.take_pending_cluster()
        && !STARTED.swap(true, Ordering::Relaxed)
    {
        spawn_servers(world, home.to_owned());
    }
}

/// Serves the cluster of `world` in the mock environment `home` until the process ends. Servers that are
/// up at the start already listen when this returns.
fn spawn_servers(world: &'static World, home: PathBuf) {
    let (lock, sockets) = match try_begin(world, &home) {
        Ok(started) => started,
        Err(error) => return log_error(&error),
    };
    let run = move || {
        let serve = AssertUnwindSafe(|| run(world, home, lock, sockets));
        match catch_unwind(serve) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log_error(&error),
            Err(_) => log_error(&Error::Panic),
        }
    };
    if let Err(error) = thread::Builder::new().name("mock-cluster".into()).spawn(run) {
        log_error(&Error::Thread(error));
    }
}

type Sockets = [ServerSocket; 4];

fn try_begin(world: &World, home: &Path) -> Result<(Option<File>, Option<Sockets>), Error> {
    let Some(lock) = lock(home)? else { return Ok((None, None)) };
    Ok((Some(lock), Some(open_sockets(world, home)?)))
}

fn open_sockets(world: &World, home: &Path) -> Result<Sockets, Error> {
    let (scenario, now) = world.scenario_and_time();
    let mut sockets = Endpoint::ALL.map(|endpoint| ServerSocket::new(endpoint, home));
    for socket in &mut sockets {
        socket.apply_fault(scenario.cluster.as_deref(), now.world)?;
    }
    Ok(sockets)
}

/// The lock of a mock environment; `None` if another process holds it.
fn lock(home: &Path) -> Result<Option<File>, Error> {
    let path = home.join(LOCK_FILE);
    let file = File::create(&path).map_err(file_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(file_error(&path)(error)),
    }
}

/// Removes the files of earlier cluster servers from a mock environment, unless a process serves there.
///
/// # Errors
/// A file cannot be removed; the message names it.
pub(crate) fn remove_files(home: &Path) -> io::Result<()> {
    if !home.join(LOCK_FILE).exists() {
        return Ok(());
    }
    if let Ok(Some(_lock)) = lock(home) {
        for endpoint in Endpoint::ALL {
            logs::remove_file(&endpoint.path(home)).map_err(io::Error::other)?;
        }
        logs::remove_directories(home).map_err(io::Error::other)?;
    }
    Ok(())
}

fn run(
    world: &'static World,
    home: PathBuf,
    lock: Option<File>,
    sockets: Option<Sockets>,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::Thread)?;
    let all = async {
        let _lock = match lock {
            Some(lock) => lock,
            None => wait_for_lock(&home).await?,
        };
        let sockets = match sockets {
            Some(sockets) => sockets,
            None => open_sockets(world, &home)?,
        };
        let state = Rc::new(ServedState::new(world, home));
        for socket in sockets {
            tokio::task::spawn_local(socket.serve(Rc::clone(&state)));
        }
        state.run().await;
        Ok(())
    };
    tokio::task::LocalSet::new().block_on(&runtime, all)
}

/// Waits until no other process serves the mock environment.
async fn wait_for_lock(home: &Path) -> Result<File, Error> {
    loop {
        if let Some(lock) = lock(home)? {
            return Ok(lock);
        }
        tokio::time::sleep(LOCK_RETRY).await;
    }
}
