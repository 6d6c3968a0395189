//! The switch on a virtual clock: seeded traffic, faults and commands, compared with the model
//! after every step.
//!
//! A simulation is a list of steps drawn from a seed. Each step is applied to a real engine, whose
//! ports are dummies and guests with real rings, and to the model. Then the frames that came out
//! (every byte, in order), all counters of all ports and the learned addresses must be the same. No
//! step reads a clock or a random source, so a failing seed always fails. Before a failure is
//! reported, the steps and frames not needed for it are removed.

pub(crate) mod frames;
mod plug;
pub mod rng;
mod steps;
mod world;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use trama_switch::counters::PortSnapshot;

use rng::Rng;
use steps::Step;
use world::World;

/// Coverage: what simulations met, so that a test can require it.
#[derive(Default, Debug)]
pub struct Coverage {
    /// Sums over all ports.
    pub counters: PortSnapshot,
    /// Entries evicted from full MAC tables.
    pub evictions: u64,
    /// Frames forwarded to the port where their destination was learned.
    pub unicast: u64,
    /// Addresses that moved to another port.
    pub moves: u64,
}

impl Coverage {
    fn add(&mut self, counters: &PortSnapshot) {
        let sum = &mut self.counters;
        for (sum, drops) in sum.drops.iter_mut().zip(counters.drops) {
            *sum += drops;
        }
        for (sum, value) in [
            (&mut sum.rx_frames, counters.rx_frames),
            (&mut sum.tx_frames, counters.tx_frames),
            (&mut sum.tx_gso_frames, counters.tx_gso_frames),
            (&mut sum.software_gso_frames, counters.software_gso_frames),
            (&mut sum.software_checksum_frames, counters.software_checksum_frames),
            (&mut sum.flooded_frames, counters.flooded_frames),
        ] {
            *sum += value;
        }
    }
}

/// Returns the steps of a seed.
fn steps_of(seed: u64, count: usize) -> Vec<Step> {
    let mut rng = Rng::new(seed);
    let mut steps = steps::initial(&mut rng);
    steps.extend((0..count).map(|_| steps::random(&mut rng)));
    steps
}

/// Applies the steps to engine and model. The error is the first step after which they differ, and
/// the difference.
fn run(seed: u64, steps: &[Step], coverage: &mut Coverage) -> Result<(), (usize, String)> {
    let mut world = World::new(seed);
    for (index, step) in steps.iter().enumerate() {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            world.apply(step);
            world.compare();
        }));
        outcome.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            (index, text.unwrap_or_default())
        })?;
    }
    world.add_to(coverage);
    Ok(())
}

/// Removes steps that the failure does not need, in ever smaller groups, then single frames, as
/// long as a failure remains.
fn shrink(seed: u64, mut steps: Vec<Step>) -> Vec<Step> {
    let fails = |steps: &[Step]| run(seed, steps, &mut Coverage::default()).err();
    let mut group = steps.len() / 2;
    while group > 0 {
        let mut at = 0;
        while at < steps.len() {
            let end = (at + group).min(steps.len());
            let rest: Vec<Step> = [&steps[..at], &steps[end..]].concat();
            match fails(&rest) {
                Some((last, _)) => steps = rest[..=last].to_vec(),
                None => at += group,
            }
        }
        group /= 2;
    }
    for at in 0..steps.len() {
        let mut index = 0;
        while let Some(fewer) = steps[at].without_frame(index) {
            let kept = std::mem::replace(&mut steps[at], fewer);
            if fails(&steps).is_none() {
                steps[at] = kept;
                index += 1;
            }
        }
    }
    steps
}

/// Runs `count` steps of a seed.
///
/// # Errors
/// The engine and the model differ; the text describes the shortest run that shows it.
pub fn check(seed: u64, count: usize, coverage: &mut Coverage) -> Result<(), String> {
    let mut steps = steps_of(seed, count);
    let Err((failed, _)) = run(seed, &steps, coverage) else { return Ok(()) };
    steps.truncate(failed + 1);
    // Each attempt to shrink fails by a panic; only the last one is reported.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let kept = shrink(seed, steps);
    let difference = run(seed, &kept, coverage).err().map_or_else(String::new, |(_, text)| text);
    std::panic::set_hook(hook);
    let drawn = (failed + 1).saturating_sub(steps_of(seed, 0).len());
    let mut report = format!(
        "switch and model differ. Replay with\n  TRAMA_SIM_SEED={seed} TRAMA_SIM_STEPS={drawn} \
         cargo nextest run -p trama-tests --test simulation\nThe steps it takes:\n"
    );
    for step in &kept {
        let _ = writeln!(report, "    {step:?}");
    }
    Err(report + &difference)
}
