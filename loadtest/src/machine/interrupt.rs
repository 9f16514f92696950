//! Ends a measurement that is interrupted (Ctrl-C, SIGTERM): no server stays behind, and the kernel
//! is put back.

use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use super::kernel::Changed;
use super::process::descendants;

/// What a shell reports of a program that SIGINT ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Watches for a signal on a thread of its own, for as long as the program runs.
pub(crate) fn watch(changed: Arc<Changed>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    std::thread::spawn(move || {
        let came = runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::io::Result::Ok(())
        });
        match came {
            Ok(()) => end(&changed),
            Err(error) => eprintln!("signals are not watched: {error}"),
        }
    });
    Ok(())
}

fn end(changed: &Changed) -> ! {
    eprintln!("interrupted");
    for pid in descendants(std::process::id()) {
        // A drain would take longer than somebody who pressed Ctrl-C wants to wait.
        let Ok(number) = i32::try_from(pid) else { continue };
        if let Err(error) = kill(Pid::from_raw(number), Signal::SIGKILL) {
            eprintln!("cannot end process {pid}: {error}");
        }
    }
    changed.restore();
    std::process::exit(EXIT_INTERRUPTED)
}
