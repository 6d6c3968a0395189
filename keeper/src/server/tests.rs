mod connections;
mod garbage;

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;

use super::*;
use crate::{AttachError, Claim, Keeper, listen_at, serve};

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

    assert!(!old.is_followed());
    let new = world.connect();
    assert_eq!(new.attach(Claim::Main).unwrap().previous, Some(pid));
    assert!(old.is_followed());
    let refused = new.settle().unwrap_err().to_string();
    assert_eq!(refused, "the previous switch still runs and needs what is kept");
    assert!(!is_readable(old.freeze_event().unwrap()));
    let going = thread::spawn({
        let new = new.clone();
        move || new.go()
    });
    let event = old.freeze_event().unwrap();
    poll(&mut [PollFd::new(&event, PollFlags::IN)], None).unwrap();
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
    poll(&mut [PollFd::new(&event, PollFlags::IN)], None).unwrap();
    drop(old);
    going.join().unwrap().unwrap();
    world.end(&new);
    assert_eq!(new.get("a").unwrap_err().to_string(), "the keeper has ended");
}

#[test]
fn a_new_keeper_is_given_what_the_one_before_had() {
    let world = World::new(LONG);
    let switch = world.attach(Claim::Main);
    let event = descriptor();
    for (key, value) in [("tap/a", "old"), ("tap/a", "new"), ("tap/b", "1"), ("tap/c", "1")] {
        switch.put(key, value.as_bytes(), &[event.as_fd()]).unwrap();
    }
    switch.remove("tap/b").unwrap();
    let World { _folder, path, thread } = world;
    switch.end().unwrap();
    thread.join().unwrap().unwrap();
    assert_eq!(switch.get("tap/a").unwrap_err().to_string(), "the keeper has ended");
    switch.remove("tap/c").unwrap_err();

    let keeper = std::cell::OnceCell::new();
    // One that connects before the switch does.
    let early = std::cell::OnceCell::new();
    let attached = switch.renew(|channel| {
        let listener = listen_at(&path)?;
        early.set(Keeper::find(&path)?.unwrap()).unwrap();
        let run = move || {
            let mut server = Server::new(listener, LONG)?;
            server.connect(channel)?;
            server.run()
        };
        keeper.set(thread::spawn(run)).unwrap();
        Ok(())
    });
    assert!(!attached.unwrap().resumes);
    let kept = switch.get("tap/a").unwrap().unwrap();
    assert_eq!((kept.value.as_slice(), kept.fds.len()), (b"new".as_slice(), 1));
    rustix::io::write(&kept.fds[0], &1_u64.to_ne_bytes()).unwrap();
    assert!(is_readable(&event), "it is the same event");
    for key in ["tap/b", "tap/c"] {
        assert!(switch.get(key).unwrap().is_none(), "{key} was removed");
    }
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let refused = early.into_inner().unwrap().attach(Claim::StandIn).unwrap_err();
    assert!(matches!(refused, AttachError::Busy { pid: found } if found == pid), "{refused}");
    switch.end().unwrap();
    keeper.into_inner().unwrap().join().unwrap().unwrap();
}

#[test]
fn a_successor_leaves_a_new_keeper_to_the_switch_that_serves() {
    let world = World::new(LONG);
    let old = world.attach(Claim::Main);
    let new = world.attach(Claim::TakeOver);
    let refused = new.renew(|_| panic!("it starts one")).unwrap_err();
    assert_eq!(refused.to_string(), "this is not the switch that serves");
    drop(old);
    new.go().unwrap();
    new.renew(|_| Err(ErrorKind::NotFound.into())).unwrap_err();
    world.end(&new);
}

#[test]
fn a_successor_that_gives_up_takes_back_that_the_other_one_ends() {
    let world = World::new(LONG);
    let old = world.attach(Claim::Main);
    let freeze = old.freeze_event().unwrap();
    let new = world.attach(Claim::TakeOver);
    let (sender, gone) = std::sync::mpsc::channel();
    let waiting = thread::spawn(move || {
        // It does not end, so this one does.
        let _ = sender.send(new.end_event().unwrap());
        drop(new.go());
    });
    poll(&mut [PollFd::new(&freeze, PollFlags::IN)], None).unwrap();
    rustix::net::shutdown(gone.recv().unwrap(), rustix::net::Shutdown::Both).unwrap();
    waiting.join().unwrap();
    let (third, _) = attach_eventually(&world, Claim::TakeOver);
    assert!(!is_readable(&freeze));
    drop(third);
    world.end(&old);
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
fn a_process_of_another_user_is_turned_away() {
    if !geteuid().is_root() {
        println!("left out: it needs root");
        return;
    }
    let world = World::new(LONG);
    let switch = world.attach(Claim::Main);
    switch.put("a", b"1", &[]).unwrap();
    // Permissions that keep others out before they ask are taken away.
    for (path, mode) in [(world.path.parent().unwrap(), 0o755), (&*world.path, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let path = world.path.clone();
    let stranger = thread::spawn(move || {
        // This thread alone becomes another user.
        let nobody = Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let keeper = Keeper::find(&path).unwrap().unwrap();
        let refused = keeper.attach(Claim::TakeOver).unwrap_err();
        (refused.to_string(), keeper.get("a").is_err())
    });
    let (refused, is_deaf) = stranger.join().unwrap();
    assert!(refused.contains("its own user alone") || refused.contains("ended"), "{refused}");
    assert!(is_deaf);
    assert!(!switch.is_followed());
    assert_eq!(switch.get("a").unwrap().unwrap().value, b"1", "it serves its own");
    world.end(&switch);
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
