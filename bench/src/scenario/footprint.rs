//! Costs of the daemon alone.

use super::{HOSTS, PLAIN, Scenario, TRAMA_ONLY, Unit, lower, trama};
use crate::load::Load;
use crate::peers::{Port, Variant};

const MILLISECONDS: Unit = lower("ms", 1e-3);
const PERCENT: Unit = lower("% of a core", 1e-2);
const PER_SECOND: Unit = lower("/s", 1.0);
const MIB: Unit = lower("MiB", 1_048_576.0);
const BYTES: Unit = lower("bytes", 1.0);
const KIB: Unit = lower("KiB", 1024.0);

const WITH_100_PORTS: Variant = Variant { silent_ports: 100, ..PLAIN };

/// trama's own cost, with a target in the unit.
const fn footprint(
    name: &'static str,
    title: &'static str,
    load: Load,
    unit: Unit,
    target: f64,
) -> Scenario {
    Scenario {
        name,
        title,
        unit,
        ports: HOSTS.split_at(2).0,
        mtu: 1500,
        load,
        entrants: TRAMA_ONLY,
        against_best: false,
        ceiling: None,
        target: Some(target),
    }
}

/// In the order of the report.
pub(super) const ALL: &[Scenario] = &[
    Scenario {
        entrants: &[trama("trama", WITH_100_PORTS)],
        ..footprint(
            "footprint-cpu",
            "CPU use when idle, 100 silent ports",
            Load::IdleCpu,
            PERCENT,
            0.2,
        )
    },
    Scenario {
        entrants: &[trama("trama", WITH_100_PORTS)],
        ..footprint(
            "footprint-wakeups",
            "wake-ups when idle, 100 silent ports",
            Load::IdleWakeups,
            PER_SECOND,
            0.0,
        )
    },
    footprint("footprint-memory", "memory of the daemon, 2 ports", Load::Memory, MIB, 12.0),
    footprint("footprint-port", "memory per additional port", Load::MemoryPerPort, KIB, 96.0),
    Scenario {
        ports: &[Port::Vhost; 2],
        ..footprint(
            "footprint-mac",
            "memory per MAC address, 1M addresses",
            Load::MemoryPerMac,
            BYTES,
            24.0,
        )
    },
    Scenario {
        ports: &[],
        entrants: &[trama("trama", WITH_100_PORTS)],
        ..footprint(
            "footprint-ready",
            "time until ready, 50 TAPs and 50 vhost-user ports",
            Load::Ready,
            MILLISECONDS,
            100.0,
        )
    },
    Scenario {
        ports: &[Port::Vhost; 100],
        ..footprint(
            "footprint-ready-vhost",
            "time until ready, 100 vhost-user ports",
            Load::Ready,
            MILLISECONDS,
            100.0,
        )
    },
];
