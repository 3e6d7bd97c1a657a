//! Signals to a command with a simulated node: the node's files are removed on every way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::NO_THREAD;
use crate::nvml::mock::MockFiles;
use crate::nvml::raw::process::exit_process;

/// The handler of SIGINT, SIGTERM, SIGHUP and SIGQUIT. By default one of them ends the process at once, with the
/// files removed; after [`Interrupt::finish`], the command ends itself and only the second one does.
#[derive(Clone, Default)]
pub(super) struct Interrupt {
    files: MockFiles,
    /// The command ends itself.
    finishes: Arc<AtomicBool>,
    /// The command reloads its files on SIGHUP.
    reloads: Arc<AtomicBool>,
    requested: Arc<AtomicBool>,
}

impl Interrupt {
    /// Handles signals from now on if there is a simulated node. Without one, signals have their usual
    /// effect.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(super) fn start(has_mock: bool) -> anyhow::Result<Self> {
        let interrupt = Self::default();
        if has_mock {
            let (ready, is_ready) = mpsc::channel();
            let handler = interrupt.clone();
            let handle = move || {
                // If signals cannot be handled, they have their usual effect.
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.and_then(|runtime| runtime.block_on(handler.handle(ready)))
            };
            thread::Builder::new().name("interrupt".to_owned()).spawn(handle).context(NO_THREAD)?;
            // An error means that the thread has ended.
            let _ = is_ready.recv();
        }
        Ok(interrupt)
    }

    /// The files that are removed.
    pub(super) fn files(&self) -> &MockFiles {
        &self.files
    }

    /// From now on the command ends itself after SIGINT or SIGTERM. SIGQUIT still ends it at once, and so does SIGHUP,
    /// unless it `reloads` files then: it means that its terminal is closed.
    pub(super) fn finish(&self, reloads: bool) {
        self.reloads.store(reloads, Ordering::Relaxed);
        self.finishes.store(true, Ordering::Relaxed);
    }

    /// Whether a signal requests the end of the command.
    #[cfg(feature = "top")]
    pub(super) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    async fn handle(self, ready: mpsc::Sender<()>) -> std::io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut quit = signal(SignalKind::quit())?;
        drop(ready);
        let mut is_ending = false;
        loop {
            let kind = tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
                _ = hangup.recv() => SignalKind::hangup(),
                _ = quit.recv() => SignalKind::quit(),
            };
            let finishes = self.finishes.load(Ordering::Relaxed);
            let is_hangup = kind == SignalKind::hangup();
            if finishes && is_hangup && self.reloads.load(Ordering::Relaxed) {
                continue;
            }
            if !finishes || is_hangup || kind == SignalKind::quit() || is_ending {
                exit(&self.files, kind);
            }
            is_ending = true;
            self.requested.store(true, Ordering::Relaxed);
        }
    }
}

/// Ends the process as a shell reports a signal.
fn exit(files: &MockFiles, kind: SignalKind) -> ! {
    // No thread creates files any more.
    let _guard = files.remove();
    let signal = u8::try_from(kind.as_raw_value()).unwrap_or_default();
    exit_process(128_u8.saturating_add(signal))
}
