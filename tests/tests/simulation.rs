//! The switch against its model, for many seeds. `TRAMA_SIM_SEEDS=N` sets the number of seeds,
//! `TRAMA_SIM_SEED=N` replays one, `TRAMA_SIM_STEPS=N` sets the steps of each.

use trama_switch::DropReason;
use trama_tests::sim::{self, Coverage};

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value}: a number is needed")))
}

#[test]
fn the_switch_does_what_the_model_does() {
    let steps = number("TRAMA_SIM_STEPS").unwrap_or(300) as usize;
    let seeds = match number("TRAMA_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TRAMA_SIM_SEEDS").unwrap_or(300),
    };
    for seed in seeds {
        if let Err(report) = sim::check(seed, steps, &mut Coverage::default()) {
            panic!("{report}");
        }
    }
}

/// Checks coverage: the drop reasons, and everything that may happen to a delivered frame.
#[test]
fn the_simulation_meets_everything() {
    let mut coverage = Coverage::default();
    for seed in 1000..1020 {
        sim::check(seed, 300, &mut coverage).unwrap_or_else(|report| panic!("{report}"));
    }
    println!("{coverage:?}");
    // These need a driver that violates the ring protocol, a frame that becomes thousands of
    // segments, a device of the operating system, a peer at a socket, a gateway's port, or a
    // tunnel.
    let elsewhere = [
        DropReason::ChainMalformed,
        DropReason::OffloadFailed,
        DropReason::DeviceError,
        DropReason::MemoryHole,
        DropReason::Truncated,
        DropReason::WrongPeer,
        DropReason::GatewayShare,
        DropReason::MirrorOutput,
        DropReason::TunnelMalformed,
        DropReason::TunnelUnknown,
        DropReason::TunnelLocal,
        DropReason::TunnelBusy,
        DropReason::TunnelOverflow,
        DropReason::TunnelMtu,
        DropReason::TunnelNoRoute,
    ];
    for reason in DropReason::ALL.iter().filter(|reason| !elsewhere.contains(reason)) {
        let met = coverage.counters.dropped(*reason);
        assert!(met >= 10, "{} only {met} times", reason.name());
    }
    let counters = &coverage.counters;
    for (what, met) in [
        ("unicast", coverage.unicast),
        ("moves", coverage.moves),
        ("evictions", coverage.evictions),
        ("flooded frames", counters.flooded_frames),
        ("large frames delivered whole", counters.tx_gso_frames),
        ("large frames cut", counters.software_gso_frames),
        ("checksums finished", counters.software_checksum_frames),
    ] {
        assert!(met >= 50, "{what} only {met} times");
    }
}
