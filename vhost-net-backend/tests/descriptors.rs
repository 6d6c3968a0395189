//! Frontends leave descriptors to the rest of the process. A program of its own, as it changes the
//! process's limit.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use trama_vhost_net_backend::descriptors::{OutOfDescriptors, RESERVE, check};

fn limit(current: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum }).unwrap();
}

#[test]
fn the_last_descriptors_are_kept() {
    for (count, kept) in [(1024, RESERVE), (64, 16)] {
        limit(count);
        let mut files = Vec::new();
        let refused = loop {
            let file = File::open("/dev/null").unwrap();
            match check(&file) {
                Ok(()) => files.push(file),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, OutOfDescriptors { limit: count });
        assert!(refused.to_string().contains(&format!("it keeps {kept} for itself")), "{refused}");
        for _ in 0..kept {
            files.push(File::open("/dev/null").unwrap());
        }
        assert!(File::open("/dev/null").is_err(), "exactly so many were kept");
        files.pop();
        files.truncate(1);
        assert_eq!(check(File::open("/dev/null").unwrap()), Ok(()), "there is room again");
    }
}
