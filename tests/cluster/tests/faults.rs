//! A cluster under faults, and agents with planted faults that the oracle must find.
#![cfg(test)]

use std::time::Instant;

use trama_cluster_sim::{Break, Setup, World};

const SMALL: Setup =
    Setup { seed: 0, hosts: 20, guests: 120, networks: 5, faults: 200_000, planted: None };

#[test]
fn guests_are_reached_in_small_clusters_under_many_faults() {
    for seed in 0..12 {
        let mut world = World::new(Setup { seed, ..SMALL });
        if let Err(fault) = world.play() {
            panic!("seed {seed}: {fault}");
        }
        let figures = world.figures();
        assert!(figures.conflicts > 0 && figures.compactions > 0, "{figures:?}");
    }
}

#[test]
fn guests_are_reached_in_a_cluster_of_200_hosts() {
    let setup = Setup { seed: 7, hosts: 200, guests: 2000, networks: 40, ..SMALL };
    let begin = Instant::now();
    let mut world = World::new(setup);
    if let Err(fault) = world.play() {
        panic!("seed {}: {fault}", setup.seed);
    }
    println!("{:?} in {:?}", world.figures(), begin.elapsed());
    assert!(world.figures().pairs > 100_000, "{:?}", world.figures());
}

#[test]
fn planted_faults_are_found() {
    for planted in [Break::NoCompare, Break::ClearThenFill] {
        let found = (0..40).find_map(|seed| {
            let setup = Setup { seed, planted: Some(planted), ..SMALL };
            World::new(setup).play().err().map(|fault| (seed, fault))
        });
        println!("{planted:?}: {found:?}");
        assert!(found.is_some(), "{planted:?} is not found");
    }
}
