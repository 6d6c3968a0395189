//! Whether every worker still runs jobs. The service manager is told that the daemon is alive only
//! while all do: a daemon whose workers stand still moves no frame, however well it answers.

use trama_switch::{Probe, WorkerHandle};

/// Asks each worker for a sign of life, and looks for it at the next beat.
pub struct Watchdog {
    workers: Vec<Watched>,
}

struct Watched {
    worker: WorkerHandle,
    probe: Option<Probe>,
    /// The log says that it stands still.
    is_reported: bool,
}

impl Watchdog {
    /// Watches these workers, which are numbered as given.
    pub fn new(workers: Vec<WorkerHandle>) -> Watchdog {
        let watch = |worker| Watched { worker, probe: None, is_reported: false };
        Watchdog { workers: workers.into_iter().map(watch).collect() }
    }

    /// Returns whether every worker has answered since the last beat, and asks them again.
    #[must_use = "a daemon with a hung worker is not alive"]
    pub fn beat(&mut self) -> bool {
        let mut all = true;
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
            all &= answers;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    use trama_switch::{Spin, WorkerOptions};

    use super::*;

    #[test]
    fn a_worker_that_stands_still_silences_the_watchdog_until_it_goes_on() {
        let worker = |name: &str| {
            let options = WorkerOptions { spin: Spin::Never, name: name.into(), seed: 1 };
            WorkerHandle::spawn(options).unwrap()
        };
        let ((well, first), (hung, second)) = (worker("well"), worker("hung"));
        let mut watchdog = Watchdog::new(vec![well.clone(), hung.clone()]);
        assert!(watchdog.beat(), "nothing was asked yet");
        until(|| watchdog.beat());

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
        // The probe of the last beat may have been answered before.
        until(|| !watchdog.beat());
        assert!(!watchdog.beat());
        release.send(()).unwrap();
        caller.join().unwrap().unwrap().unwrap();
        until(|| watchdog.beat());

        for (handle, thread) in [(well, first), (hung, second)] {
            handle.stop();
            thread.join().unwrap();
        }
        // A worker that has ended does not answer; the probes of the last beat may have been.
        until(|| !watchdog.beat());
        assert!(!watchdog.beat());
    }

    fn until(mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
