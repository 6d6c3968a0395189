mod connections;
mod garbage;

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;

use super::*;
use crate::client::listen_at;
use crate::{AttachError, Claim, Keeper, serve};

/// A keeper in a thread, which ends with the last switch.
struct World {
    _folder: TempDir,
    path: PathBuf,
    thread: JoinHandle<io::Result<()>>,
}

impl World {
    fn new(linger: Duration) -> World {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keeper");
        let listener = listen_at(&path).unwrap();
        World { _folder: folder, path, thread: thread::spawn(move || serve(listener, linger)) }
    }

    fn connect(&self) -> Keeper {
        Keeper::find(&self.path).unwrap().unwrap()
    }

    fn attach(&self, claim: Claim) -> Keeper {
        let keeper = self.connect();
        keeper.attach(claim).unwrap();
        keeper
    }

    /// Ends the keeper.
    fn end(self, switch: &Keeper) {
        switch.end().unwrap();
        self.thread.join().unwrap().unwrap();
    }
}

const LONG: Duration = Duration::from_secs(600);

fn descriptor() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

fn is_readable(fd: impl AsFd) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

/// Waits until a switch may attach: the keeper learns of the end of another one by itself.
fn attach_eventually(world: &World, claim: Claim) -> (Keeper, crate::Attached) {
    loop {
        let keeper = world.connect();
        match keeper.attach(claim) {
            Ok(attached) => return (keeper, attached),
            Err(AttachError::Busy { .. }) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn an_entry_outlives_its_switch() {
    let world = World::new(LONG);
    let first = world.connect();
    let attached = first.attach(Claim::Main).unwrap();
    assert_eq!((attached.resumes, attached.restarts, attached.previous), (false, 0, None));
    let event = descriptor();
    first.put("tap/vm1", b"request", &[event.as_fd(), event.as_fd()]).unwrap();
    assert!(first.get("tap/vm2").unwrap().is_none());
    drop((first, event));

    let (second, attached) = attach_eventually(&world, Claim::StandIn);
    assert_eq!((attached.resumes, attached.restarts), (true, 1));
    let kept = second.get("tap/vm1").unwrap().unwrap();
    assert_eq!((kept.value.as_slice(), kept.fds.len()), (b"request".as_slice(), 2));
    rustix::io::write(&kept.fds[0], &1_u64.to_ne_bytes()).unwrap();
    assert!(is_readable(&kept.fds[1]), "they are the same event");
    second.remove("tap/vm1").unwrap();
    assert!(second.get("tap/vm1").unwrap().is_none());
    world.end(&second);
}

#[test]
fn what_is_not_used_any_more_is_dropped() {
    let world = World::new(LONG);
    let first = world.attach(Claim::Main);
    for number in 0..200 {
        first.put(&format!("tap/{number}"), b"", &[]).unwrap();
    }
    drop(first);
    let (second, _) = attach_eventually(&world, Claim::Main);
    second.get("tap/7").unwrap();
    second.put("tap/new", b"", &[]).unwrap();
    let dropped = second.settle().unwrap();
    assert_eq!(dropped.len(), 199);
    assert!(!dropped.contains(&"tap/7".to_owned()) && second.get("tap/7").unwrap().is_some());
    assert!(second.get("tap/8").unwrap().is_none());
    assert_eq!(second.settle().unwrap(), Vec::<String>::new());
    world.end(&second);
}

#[test]
fn two_switches_change_over() {
    let world = World::new(LONG);
    let old = world.attach(Claim::StandIn);
    old.put("control", b"", &[]).unwrap();
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let refused = world.connect().attach(Claim::StandIn).unwrap_err();
    assert!(matches!(refused, AttachError::Busy { pid: found } if found == pid), "{refused}");

    let new = world.connect();
    assert_eq!(new.attach(Claim::Main).unwrap().previous, Some(pid));
    let refused = new.settle().unwrap_err().to_string();
    assert_eq!(refused, "the previous switch still runs and needs what is kept");
    assert!(!is_readable(old.freeze_event().unwrap()));
    let going = thread::spawn({
        let new = new.clone();
        move || new.go()
    });
    let event = old.freeze_event().unwrap();
    poll(&mut [PollFd::from_borrowed_fd(event, PollFlags::IN)], None).unwrap();
    assert!(!going.is_finished());
    assert!(new.get("control").unwrap().is_some(), "it answers meanwhile");
    old.end().unwrap();
    assert!(new.get("control").unwrap().is_some(), "it goes on with everything");
    drop(old);
    going.join().unwrap().unwrap();
    new.go().unwrap();
    assert!(new.settle().unwrap().is_empty());
    world.end(&new);
}

#[test]
fn a_switch_learns_that_its_keeper_has_ended() {
    let world = World::new(LONG);
    let old = world.attach(Claim::Main);
    let new = world.attach(Claim::TakeOver);
    let going = thread::spawn({
        let new = new.clone();
        move || new.go()
    });
    let event = old.freeze_event().unwrap();
    poll(&mut [PollFd::from_borrowed_fd(event, PollFlags::IN)], None).unwrap();
    drop(old);
    going.join().unwrap().unwrap();
    world.end(&new);
    assert_eq!(new.get("a").unwrap_err().to_string(), "the keeper has ended");
}

#[test]
fn without_a_switch_it_ends() {
    let world = World::new(Duration::from_millis(50));
    let switch = world.attach(Claim::Main);
    thread::sleep(Duration::from_millis(120));
    switch.put("a", b"", &[]).unwrap();
    drop(switch);
    world.thread.join().unwrap().unwrap();
    assert!(Keeper::find(&world.path).unwrap().is_none());
}

#[test]
fn one_keeper_listens_at_a_path() {
    let world = World::new(LONG);
    let refused = listen_at(&world.path).unwrap_err().to_string();
    assert!(refused.ends_with("a keeper listens there already"), "{refused}");
    let path = world.path.clone();
    assert!(Keeper::find(&path.with_extension("none")).unwrap().is_none());
    let switch = world.attach(Claim::Main);
    switch.end().unwrap();
    world.thread.join().unwrap().unwrap();
    listen_at(&path).expect("replaces the socket of one that has ended");
    File::create(path.with_extension("file")).unwrap();
    assert!(listen_at(&path.with_extension("file")).is_err());
}

#[test]
fn what_is_refused_disturbs_nothing() {
    let world = World::new(LONG);
    let switch = world.connect();
    assert_eq!(switch.get("a").unwrap_err().to_string(), "attach first");
    switch.attach(Claim::Main).unwrap();
    assert_eq!(switch.attach(Claim::Main).unwrap_err().to_string(), "attached already");
    switch.put("a", b"1", &[]).unwrap();
    let long = vec![0; crate::LONGEST_VALUE + 1];
    let refused = switch.put("a", &long, &[]).unwrap_err().to_string();
    assert_eq!(refused, "a value has up to 65536 bytes, not 65537");
    let event = descriptor();
    let refused = switch.put("a", b"2", &vec![event.as_fd(); 65]).unwrap_err().to_string();
    assert_eq!(refused, "too many descriptors");
    assert_eq!(switch.get("a").unwrap().unwrap().value, b"1");
    let others: Vec<_> = (1..MOST_CHANNELS).map(|_| world.connect()).collect();
    let refused = world.connect().attach(Claim::Main).unwrap_err().to_string();
    assert!(refused.contains("too many switches") || refused.contains("ended"), "{refused}");
    drop(others);
    world.end(&switch);
}
