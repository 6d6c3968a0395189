//! Questions to a gateway process, and the callers that wait for the answers.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use trama_gateway::control::{Channel, Command};
use trama_gateway::question::{Answer, Question, Row};

/// Limit of unanswered questions; further ones are refused.
const MAX_OPEN: usize = 64;

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AskError {
    /// The answer did not come in time.
    #[error("its gateway did not answer within {0:?}; ask again")]
    Late(Duration),
    /// No process runs, it ended meanwhile, or it has too many unanswered questions.
    #[error("its gateway does not answer; tramactl show says whether it runs, ask again when so")]
    Gone,
}

/// A question on its way to the process.
pub(super) struct Inquiry {
    question: Question,
    parts: Sender<(Answer, bool)>,
}

impl Inquiry {
    pub(super) fn new<R: Row>() -> (Inquiry, Pending<R>) {
        let (parts, receiver) = channel();
        (Inquiry { question: R::QUESTION, parts }, Pending { parts: receiver, row: PhantomData })
    }
}

/// An answer that is still to come.
pub struct Pending<R> {
    parts: Receiver<(Answer, bool)>,
    row: PhantomData<R>,
}

impl<R: Row> Pending<R> {
    /// Waits for the answer, at most `limit`.
    ///
    /// # Errors
    /// No complete answer came within the limit, or the process ended.
    pub fn wait(self, limit: Duration) -> Result<Vec<R>, AskError> {
        let until = Instant::now() + limit;
        let mut rows = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let (part, last) = self.parts.recv_timeout(left).map_err(|error| match error {
                RecvTimeoutError::Timeout => AskError::Late(limit),
                RecvTimeoutError::Disconnected => AskError::Gone,
            })?;
            rows.extend(R::of(part));
            if last {
                return Ok(rows);
            }
        }
    }
}

/// Unanswered questions to one process. Dropping it fails every [`Pending`] that still waits.
#[derive(Default)]
pub(super) struct OpenQuestions {
    last: u64,
    waiting: HashMap<u64, Sender<(Answer, bool)>>,
}

impl OpenQuestions {
    pub(super) fn send(&mut self, inquiry: Inquiry, channel: &mut Channel) {
        if self.waiting.len() >= MAX_OPEN {
            return;
        }
        self.last += 1;
        let Inquiry { question, parts } = inquiry;
        self.waiting.insert(self.last, parts);
        // A closed channel is noticed when it is read.
        let _ = channel.send(&Command::Ask { id: self.last, question });
    }

    pub(super) fn receive(&mut self, id: u64, part: Answer, last: bool) {
        if let Some(parts) = self.waiting.get(&id) {
            // An error means that the caller no longer waits.
            let _ = parts.send((part, last));
        }
        if last {
            self.waiting.remove(&id);
        }
    }
}
