//! Runs a target on many inputs, and notices panics of any thread.

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

use crate::mutator::Mutator;
use crate::targets::Target;

/// How long a target runs.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// For this number of inputs.
    Inputs(u64),
    /// For this time.
    Time(Duration),
}

/// An input that made a target panic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The input.
    pub input: Vec<u8>,
    /// What the panic said, and where.
    pub message: String,
}

impl Failure {
    /// Writes the input into a folder. Returns what was promised, and the command that runs the
    /// target on this input again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, target: &Target, seed: u64, folder: &Path) -> io::Result<String> {
        let file = folder.join(format!("{}-{seed}.input", target.name));
        fs::write(&file, &self.input)
            .map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
        let (message, name) = (&self.message, target.name);
        Ok(format!(
            "{message}\nseed {seed}, {} bytes; again: cargo run -p trama-fuzz -- {name} {}",
            self.input.len(),
            file.display()
        ))
    }
}

/// Panics of all threads since the last input.
static PANICS: AtomicUsize = AtomicUsize::new(0);
/// What the first of them said.
static MESSAGE: Mutex<Option<String>> = Mutex::new(None);
/// Whether panics are not printed: one that fails is made shorter.
pub(crate) static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// Counts panics, of which those of other threads are not seen otherwise.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let mut message = MESSAGE.lock().unwrap_or_else(PoisonError::into_inner);
            message.get_or_insert_with(|| info.to_string());
            PANICS.fetch_add(1, Ordering::SeqCst);
            if !IS_QUIET.load(Ordering::SeqCst) {
                print(info);
            }
        }));
    });
}

/// Runs a target on one input, alone in its process.
///
/// # Errors
/// The target panics, or a thread that it has started does.
pub(crate) fn run_one(target: &Target, input: &[u8]) -> Result<(), Failure> {
    count_panics();
    let result = panic::catch_unwind(AssertUnwindSafe(|| (target.body)(input)));
    let panics = PANICS.swap(0, Ordering::SeqCst);
    if result.is_ok() && panics == 0 {
        return Ok(());
    }
    let message = MESSAGE.lock().unwrap_or_else(PoisonError::into_inner).take();
    Err(Failure { input: input.to_vec(), message: message.unwrap_or_default() })
}

/// Runs a target on its seeds and then on changes of them, until the limit; returns how many inputs
/// there were. Equal seeds give equal inputs.
///
/// # Errors
/// The first input that makes it panic.
pub fn run(target: &Target, seed: u64, limit: Limit) -> Result<u64, Failure> {
    let corpus = (target.seeds)();
    for input in &corpus {
        run_one(target, input)?;
    }
    let (began, mut mutator, mut count) = (Instant::now(), Mutator::new(seed), 0);
    let goes_on = |count| match limit {
        Limit::Inputs(most) => count < most,
        Limit::Time(most) => began.elapsed() < most,
    };
    while goes_on(count) {
        run_one(target, &mutator.next(&corpus, target.longest))?;
        count += 1;
    }
    Ok(count)
}
