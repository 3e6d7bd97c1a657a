//! The cluster's servers: one thread, its sockets, and the files of a stage.
//!
//! - `pod-resources/kubelet.sock`: the kubelet's `PodResources`, gRPC;
//! - `kubeconfig`: where the API server listens, there as soon as it does;
//! - `pods-log/`, `containers-log/`: see [`super::logs`].
//!
//! Of several processes that run from a stage, the one that has locked `cluster.lock` serves.

mod door;
mod grpc;
mod http;
mod keeper;
mod reply;

use std::{
    fs::{File, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    rc::Rc,
    thread,
    time::Duration,
};

use self::{door::Door, keeper::Keeper};
use super::logs;
use crate::{
    scenario::cluster::Server,
    world::{World, complain},
};

const LOCK: &str = "cluster.lock";
/// How often a process that does not serve looks whether the other has gone.
const RETRY: Duration = Duration::from_millis(500);

/// Why the cluster is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A file or a socket cannot be had.
    #[error("cluster: {path}: {error}{mend}", path = .path.display(), mend = mend(.path))]
    File { path: PathBuf, error: io::Error },
    /// No port can be had.
    #[error("cluster: no port of 127.0.0.1 for the API server: {0}")]
    Port(io::Error),
    /// The thread cannot be had.
    #[error("cluster: no thread to serve it: {0}")]
    Thread(io::Error),
    /// A fault in the mock itself.
    #[error("cluster: it is served no more: a fault in the mock itself")]
    Panic,
}

/// Sockets have shorter paths than files.
fn mend(path: &Path) -> &'static str {
    if path.as_os_str().len() < 108 {
        ""
    } else {
        ": set the stage in a directory with a shorter path"
    }
}

/// Serves the cluster of a world in the stage `home`, for as long as the process lives. Who listens
/// at the beginning does so before this returns.
pub(crate) fn begin(world: &'static World, home: PathBuf) {
    let (lock, doors) = match try_begin(world, &home) {
        Ok(first) => first,
        Err(error) => return complain(&error),
    };
    let run = move || {
        let serve = AssertUnwindSafe(|| run(world, home, lock, doors));
        match catch_unwind(serve) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => complain(&error),
            Err(_) => complain(&Error::Panic),
        }
    };
    if let Err(error) = thread::Builder::new().name("mock-cluster".into()).spawn(run) {
        complain(&Error::Thread(error));
    }
}

type Doors = [Door; 2];

fn try_begin(world: &World, home: &Path) -> Result<(Option<File>, Option<Doors>), Error> {
    let Some(lock) = lock(home)? else { return Ok((None, None)) };
    Ok((Some(lock), Some(doors(world, home)?)))
}

fn doors(world: &World, home: &Path) -> Result<Doors, Error> {
    let (scenario, now) = world.scene();
    let mut doors = [Door::new(Server::Kubelet, home), Door::new(Server::Api, home)];
    for door in &mut doors {
        door.turn(scenario.cluster.as_deref(), now.world)?;
    }
    Ok(doors)
}

/// The lock of a stage, if no other process has it.
fn lock(home: &Path) -> Result<Option<File>, Error> {
    let path = home.join(LOCK);
    let file = File::create(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(at(&path)(error)),
    }
}

/// Takes away what a cluster has left in a stage, unless one is served there now.
///
/// # Errors
/// When it cannot be removed.
pub(crate) fn clear(home: &Path) -> io::Result<()> {
    if !home.join(LOCK).exists() {
        return Ok(());
    }
    if let Ok(Some(_lock)) = lock(home) {
        for server in [Server::Kubelet, Server::Api] {
            logs::gone(std::fs::remove_file(Door::path(server, home)))?;
        }
        logs::clear(home)?;
    }
    Ok(())
}

fn run(
    world: &'static World,
    home: PathBuf,
    lock: Option<File>,
    doors: Option<Doors>,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::Thread)?;
    let all = async {
        let _lock = match lock {
            Some(lock) => lock,
            None => turn_to_serve(&home).await?,
        };
        let doors = match doors {
            Some(doors) => doors,
            None => self::doors(world, &home)?,
        };
        let keeper = Rc::new(Keeper::new(world, home));
        for door in doors {
            tokio::task::spawn_local(door.keep(Rc::clone(&keeper)));
        }
        keeper.keep().await;
        Ok(())
    };
    tokio::task::LocalSet::new().block_on(&runtime, all)
}

/// Waits until no other process serves the stage.
async fn turn_to_serve(home: &Path) -> Result<File, Error> {
    loop {
        if let Some(lock) = lock(home)? {
            return Ok(lock);
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::File { path, error }
}
