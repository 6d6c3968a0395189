//! One metrics text, shared by scrapes at the same time.
//!
//! At a thousand ports the text has megabytes, and rendering it takes a multiple of that. So one is
//! rendered at a time, and scrapes within [`FRESH`] share it.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::Mutex;
use tokio::task::{JoinError, spawn_blocking};

/// How long an answer is given again.
const FRESH: Duration = Duration::from_millis(250);

/// The last answer.
pub(super) struct Scrapes {
    fresh: Duration,
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl Default for Scrapes {
    fn default() -> Scrapes {
        Scrapes { fresh: FRESH, last: Mutex::default() }
    }
}

impl Scrapes {
    /// Returns the last answer if it is fresh, and otherwise the one that `render` makes.
    ///
    /// # Errors
    /// `render` panicked.
    pub(super) async fn answer(
        &self,
        render: impl FnOnce() -> String + Send + 'static,
    ) -> Result<Bytes, JoinError> {
        // The others wait here while one makes the text.
        let mut last = self.last.lock().await;
        if let Some((at, text)) = &*last
            && at.elapsed() < self.fresh
        {
            return Ok(text.clone());
        }
        // Freed first, so that there are never two.
        *last = None;
        let text = Bytes::from(spawn_blocking(render).await?);
        *last = Some((Instant::now(), text.clone()));
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Scrapes twenty times at once; returns the answers, and how many were made.
    fn twenty(fresh: Duration) -> (Vec<Bytes>, usize) {
        let scrapes = Arc::new(Scrapes { fresh, last: Mutex::default() });
        let made = Arc::new(AtomicUsize::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answers = runtime.block_on(async {
            let scrape = || {
                let (scrapes, made) = (scrapes.clone(), made.clone());
                let render = move || format!("text {}", made.fetch_add(1, Ordering::Relaxed));
                tokio::spawn(async move { scrapes.answer(render).await.unwrap() })
            };
            let tasks: Vec<_> = (0..20).map(|_| scrape()).collect();
            let mut answers = Vec::new();
            for task in tasks {
                answers.push(task.await.unwrap());
            }
            answers
        });
        (answers, made.load(Ordering::Relaxed))
    }

    #[test]
    fn scrapes_at_the_same_time_share_one_text() {
        let (answers, made) = twenty(Duration::from_secs(60));
        assert_eq!(made, 1);
        assert!(answers.iter().all(|text| text.as_ptr() == answers[0].as_ptr()), "and its memory");
        assert_eq!(answers[0], "text 0");
    }

    #[test]
    fn an_old_text_is_made_again() {
        let (answers, made) = twenty(Duration::ZERO);
        assert_eq!((answers.len(), made), (20, 20));
    }

    #[test]
    fn a_text_that_cannot_be_made_fails_alone() {
        let scrapes = Scrapes::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            assert!(scrapes.answer(|| panic!("no text")).await.is_err());
            assert_eq!(scrapes.answer(|| "text".to_owned()).await.unwrap(), "text");
        });
    }
}
