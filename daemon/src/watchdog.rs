//! Whether every worker still runs jobs. The service manager is told that the daemon is alive only
//! while all do: a daemon whose workers stand still moves no frame, however well it answers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use trama_switch::{Probe, WorkerHandle};

/// Watches the workers on a thread of its own, which no request to a worker that stands still can
/// hold up.
pub struct Watchdog {
    is_well: Arc<AtomicBool>,
}

impl Watchdog {
    /// Asks these workers once a `period`, as long as the process lives. `report` is told each time
    /// which one stands still, by its number as given.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        workers: Vec<WorkerHandle>,
        period: Duration,
        report: impl Fn(Option<usize>) + Send + 'static,
    ) -> io::Result<Watchdog> {
        let is_well = Arc::new(AtomicBool::new(true));
        let (mut beats, told) = (Beats::new(workers), is_well.clone());
        std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            loop {
                let hung = beats.beat();
                report(hung);
                told.store(hung.is_none(), Ordering::Relaxed);
                std::thread::sleep(period);
            }
        })?;
        Ok(Watchdog { is_well })
    }

    /// Whether every worker has answered lately.
    pub fn is_well(&self) -> bool {
        self.is_well.load(Ordering::Relaxed)
    }
}

/// Asks each worker for a sign of life, and looks for it at the next beat.
struct Beats {
    workers: Vec<Watched>,
}

struct Watched {
    worker: WorkerHandle,
    probe: Option<Probe>,
    /// The log says that it stands still.
    is_reported: bool,
}

impl Beats {
    fn new(workers: Vec<WorkerHandle>) -> Beats {
        let watch = |worker| Watched { worker, probe: None, is_reported: false };
        Beats { workers: workers.into_iter().map(watch).collect() }
    }

    /// Asks the workers, and returns the first one that has not answered since the last beat, by
    /// its number.
    #[must_use = "a daemon with a hung worker is not alive"]
    fn beat(&mut self) -> Option<usize> {
        let mut hung = None;
        for (number, watched) in self.workers.iter_mut().enumerate() {
            let answers = watched.probe.as_ref().is_none_or(Probe::is_answered);
            if answers {
                watched.probe = Some(watched.worker.probe());
                if std::mem::take(&mut watched.is_reported) {
                    tracing::warn!("worker{number} answers again");
                }
            } else if !std::mem::replace(&mut watched.is_reported, true) {
                tracing::error!(
                    "worker{number} does not answer: its networks stand still, and the service \
                     manager is told nothing until it does"
                );
            }
            hung = hung.or((!answers).then_some(number));
        }
        hung
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use trama_switch::{Spin, WorkerOptions};

    use super::*;

    #[test]
    fn a_worker_that_stands_still_silences_the_watchdog_until_it_goes_on() {
        let worker = |name: &str| {
            let options = WorkerOptions { spin: Spin::Never, name: name.into(), seed: 1 };
            WorkerHandle::spawn(options).unwrap()
        };
        let ((well, first), (hung, second)) = (worker("well"), worker("hung"));
        let mut watchdog = Beats::new(vec![well.clone(), hung.clone()]);
        assert_eq!(watchdog.beat(), None, "nothing was asked yet");
        until(|| watchdog.beat().is_none());

        let (release, released) = channel::<()>();
        let (begin, begun) = channel();
        let blocked = hung.clone();
        let caller = std::thread::spawn(move || {
            blocked.call(move |_, _| {
                begin.send(()).unwrap();
                released.recv()
            })
        });
        begun.recv().unwrap();
        // The probe of the last beat may have been answered before, and the other one may be late.
        until(|| watchdog.beat() == Some(1));
        release.send(()).unwrap();
        caller.join().unwrap().unwrap().unwrap();
        until(|| watchdog.beat().is_none());

        for (handle, thread) in [(well, first), (hung, second)] {
            handle.stop();
            thread.join().unwrap();
        }
        // A worker that has ended does not answer; the probes of the last beat may have been.
        until(|| watchdog.beat() == Some(0));
    }

    fn until(mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
