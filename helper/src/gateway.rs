//! Starts the processes that talk to others: gateways, and the one that serves browsers.
//!
//! A gateway is a child of `tramad`, although the helper starts it; `tramad` is passed a pidfd, by
//! which it waits for the end. The process begins as the helper's user in namespaces of its own,
//! and becomes the gateways' user before it reads anything (`trama_gateway::process`).
//!
//! It outlives that `tramad`, and may outlive the helper, too. The next `tramad` has its pidfd from
//! the keeper, and asks its own helper to kill the process by that.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::{fs, io};

use libc::{CLONE_NEWIPC, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_PARENT};
use nix::unistd::{User, getegid, geteuid};
use rustix::fs::{Access, AtFlags, Gid, Mode as FileMode, OFlags, Uid, access, chownat, open};
use rustix::process::{Signal, pidfd_send_signal};

use trama_sandbox::{Mode, TRAP_VARIABLE};

use crate::pidfd::{has_ended, process_of};
use crate::request::{Answer, Reply};
use crate::spawn::{Spawn, Spawned, is_first_process, spawn};

/// The user of gateways; the package makes it.
const USER: &str = "trama-gateway";
/// The user of gateways on a host that lacks that one.
const NOBODY: u32 = 65534;
/// What their first argument, their title, begins with, and what their second one is.
const TITLE: &str = "trama:";
const COMMAND: &str = "gateway";
/// The name and the second argument of the process that serves browsers. No network has that name
/// and this argument.
const WEB: &str = "web";
/// Environment variables that gateways are passed.
const PASSED: [&str; 2] = [TRAP_VARIABLE, "RUST_BACKTRACE"];

/// Whose children gateways become.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    /// Of this process, which is not a helper. They keep its user and namespaces.
    Itself,
    /// Of the process that has started this one.
    Caller,
}

/// What a process is started for.
struct Role<'a> {
    command: &'static str,
    name: &'a str,
    input: &'a OwnedFd,
    /// Its descriptor 3.
    third: Option<&'a OwnedFd>,
}

/// Starts and kills gateways, and the process that serves browsers.
pub(crate) struct Gateways {
    program: PathBuf,
    parent: Parent,
    /// The user and group that gateways become; `None`: they keep theirs.
    user: Option<(u32, u32)>,
    is_user_missing: bool,
    sandbox: Mode,
    running: HashMap<u32, OwnedFd>,
    /// At this number, those that have ended are removed.
    prune_at: usize,
}

impl Gateways {
    pub(crate) fn new(program: PathBuf, parent: Parent, sandbox: Mode) -> Gateways {
        let can_change = parent == Parent::Caller && geteuid().is_root();
        let found = User::from_name(USER).ok().flatten();
        let is_user_missing = can_change && found.is_none();
        let user = found.map_or((NOBODY, NOBODY), |it| (it.uid.as_raw(), it.gid.as_raw()));
        let user = can_change.then_some(user);
        let (running, prune_at) = (HashMap::new(), 64);
        Gateways { program, parent, user, is_user_missing, sandbox, running, prune_at }
    }

    /// Opens a network's lease folder below `state`; makes it, for the gateways' user alone.
    pub(crate) fn lease_folder(&self, state: &Path, network: &str) -> Result<OwnedFd, String> {
        // A network of mode `nat` has one for each port, `NETWORK/PORT`.
        let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
        if !network.split('/').all(is_name) || network.matches('/').count() > 1 {
            return Err(format!("{network:?} is not the name of a network"));
        }
        // A prefix, so that no name leads to another folder.
        let path = state.join(format!("leases-{network}"));
        self.open_folder(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn open_folder(&self, path: &Path) -> io::Result<OwnedFd> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = open(path, flags, FileMode::empty())?;
        let Some((user, group)) = self.user else { return Ok(folder) };
        if fs::File::from(folder.try_clone()?).metadata()?.uid() != user {
            // Made by a version whose gateways had another user.
            for entry in fs::read_dir(path)? {
                let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(group));
                let name = entry?.file_name();
                chownat(&folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            fchown(&folder, Some(user), Some(group))?;
        }
        Ok(folder)
    }

    /// Starts the gateway of a network; `leases` is the folder below which it has its leases.
    pub(crate) fn start(
        &mut self,
        network: &str,
        leases: Option<&Path>,
        lifeline: OwnedFd,
    ) -> Answer {
        let (folder, folder_fault) = match leases.map(|state| self.lease_folder(state, network)) {
            Some(Ok(folder)) => (Some(folder), None),
            Some(Err(fault)) => (None, Some(fault)),
            None => (None, None),
        };
        let role =
            Role { command: COMMAND, name: network, input: &lifeline, third: folder.as_ref() };
        let has_folder = folder.is_some();
        self.start_as(&role, has_folder.then_some("--leases"), folder_fault)
    }

    /// Starts the process that serves browsers on a listening socket.
    pub(crate) fn start_web(&mut self, link: &OwnedFd, listener: &OwnedFd) -> Answer {
        let role = Role { command: WEB, name: WEB, input: link, third: Some(listener) };
        self.start_as(&role, None, None)
    }

    fn start_as(
        &mut self,
        role: &Role<'_>,
        option: Option<&str>,
        folder_fault: Option<String>,
    ) -> Answer {
        let spawned = self.spawn(role, option);
        let (spawned, mut missing) =
            spawned.map_err(|error| format!("start a process: {error}"))?;
        let Spawned { process, pidfd } = spawned;
        missing.extend(self.is_user_missing.then(|| {
            format!("a user of their own for gateways, which are user {NOBODY}: useradd -r {USER}")
        }));
        self.prune();
        let copy = pidfd.try_clone().map_err(|error| format!("its pidfd: {error}"));
        self.running.insert(process, pidfd);
        Ok((Reply::Gateway { process, folder_fault, missing }, vec![copy?]))
    }

    fn spawn(&self, role: &Role<'_>, option: Option<&str>) -> io::Result<(Spawned, Vec<String>)> {
        access(&self.program, Access::EXEC_OK)?;
        let null = open("/dev/null", OFlags::WRONLY | OFlags::CLOEXEC, FileMode::empty())?;
        let program = CString::new(self.program.as_os_str().as_bytes())?;
        let namespaces = self.namespaces();
        let maps = user_maps()?;
        let with = |namespaces: i32| {
            let has_own_mounts = namespaces & CLONE_NEWNS != 0;
            let is_new_user = namespaces & CLONE_NEWUSER != 0;
            let parent = if self.parent == Parent::Caller { CLONE_PARENT } else { 0 };
            spawn(&Spawn {
                program: &program,
                arguments: self.arguments(role, has_own_mounts, option)?,
                environment: environment()?,
                input: role.input,
                output: &null,
                third: role.third,
                maps: if is_new_user { &maps } else { &[] },
                flags: namespaces | parent,
            })
        };
        match with(namespaces) {
            Err(error) if namespaces != 0 => {
                let missing = format!("namespaces of gateways (mount, pid, ipc): {error}");
                Ok((with(0)?, vec![missing]))
            }
            result => Ok((result?, Vec::new())),
        }
    }

    /// The namespaces that a gateway gets: those that take privileges, or as a user a namespace
    /// for them.
    fn namespaces(&self) -> i32 {
        let own = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC;
        match self.parent {
            Parent::Itself => 0,
            // Its siblings' parent would be in another namespace.
            Parent::Caller if is_first_process() => 0,
            Parent::Caller if geteuid().is_root() => own,
            Parent::Caller => own | CLONE_NEWUSER,
        }
    }

    fn arguments(
        &self,
        role: &Role<'_>,
        has_own_mounts: bool,
        option: Option<&str>,
    ) -> io::Result<Vec<CString>> {
        let mode = self.sandbox.name().to_owned();
        let name = format!("{TITLE}{}", role.name);
        let mut arguments = vec![name, role.command.into(), "--sandbox".into(), mode];
        if let Some((user, group)) = self.user {
            arguments.extend(["--user".into(), format!("{user}:{group}")]);
        }
        arguments.extend(has_own_mounts.then(|| "--own-mounts".into()));
        arguments.extend(option.map(str::to_owned));
        arguments.into_iter().map(|text| Ok(CString::new(text)?)).collect()
    }

    /// Kills a gateway: one that was started here, or one that another helper has started.
    ///
    /// # Errors
    /// It is no gateway.
    pub(crate) fn kill(&mut self, pidfd: &OwnedFd) -> Result<(), String> {
        // One that has ended is no error.
        let Some(process) = process_of(pidfd).map_err(|error| error.to_string())? else {
            return Ok(());
        };
        // One that has ended may have left its number to another process.
        let own = self.running.remove(&process);
        let is_own = own.is_some_and(|known| !has_ended(known) || has_ended(pidfd));
        if !is_own && !self.is_gateway(process) {
            // If it has ended meanwhile, the number may be another process's by now.
            let refused = format!("process {process} is no gateway and is not ended");
            return if has_ended(pidfd) { Ok(()) } else { Err(refused) };
        }
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
        Ok(())
    }

    /// Whether a process has the user and the arguments of gateways that helpers start.
    fn is_gateway(&self, process: u32) -> bool {
        let own = || (self.parent == Parent::Caller).then(|| geteuid().as_raw());
        let user = self.user.map(|(user, _)| user).or_else(own).filter(|user| *user != 0);
        let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}"));
        let (Some(user), Ok(status), Ok(arguments)) = (user, read("status"), read("cmdline"))
        else {
            return false;
        };
        let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let has_user = |users: &str| users.split_whitespace().all(|id| id.parse() == Ok(user));
        let mut arguments = arguments.split('\0');
        let is_named = arguments.next().is_some_and(|name| name.starts_with(TITLE));
        users.is_some_and(has_user) && is_named && arguments.next() == Some(COMMAND)
    }

    /// Forgets those that have ended, once there are many.
    fn prune(&mut self) {
        if self.running.len() >= self.prune_at {
            self.running.retain(|_, pidfd| !has_ended(pidfd));
            self.prune_at = 2 * self.running.len() + 64;
        }
    }
}

fn environment() -> io::Result<Vec<CString>> {
    let of = |name: &&str| std::env::var(name).ok().map(|value| format!("{name}={value}"));
    PASSED.iter().filter_map(of).map(|text| Ok(CString::new(text)?)).collect()
}

/// The maps by which the caller's user is root in a new user namespace (user_namespaces(7)).
fn user_maps() -> io::Result<[(&'static std::ffi::CStr, CString); 3]> {
    let (user, group) = (geteuid(), getegid());
    Ok([
        (c"/proc/self/setgroups", CString::new("deny")?),
        (c"/proc/self/uid_map", CString::new(format!("0 {user} 1"))?),
        (c"/proc/self/gid_map", CString::new(format!("0 {group} 1"))?),
    ])
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;
    use crate::pidfd::status_at_end;

    fn gateways() -> Gateways {
        Gateways::new("/bin/true".into(), Parent::Itself, Mode::Enforce)
    }

    #[test]
    fn a_lease_folder_is_made_for_its_user_and_no_name_leads_elsewhere() {
        use std::os::unix::fs::PermissionsExt;
        let state = tempfile::tempdir().unwrap();
        gateways().lease_folder(&state.path().join("deep"), "lab").unwrap();
        let made = fs::metadata(state.path().join("deep/leases-lab")).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, 0o700);
        gateways().lease_folder(state.path(), "out/vm1").unwrap();
        assert!(state.path().join("leases-out/vm1").is_dir());
        for name in ["", "a/", "../x", "a/../b", "a//b", "a/."] {
            let refused = gateways().lease_folder(state.path(), name).unwrap_err();
            assert!(refused.contains("not the name of a network"), "{refused}");
        }
        std::os::unix::fs::symlink("/etc", state.path().join("leases-link")).unwrap();
        assert!(gateways().lease_folder(state.path(), "link").is_err(), "a link is not followed");
    }

    fn pidfd_of(child: &Child) -> OwnedFd {
        pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap()
    }

    #[test]
    fn a_process_runs_and_is_killed_by_its_pidfd() {
        let (lifeline, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut gateways = Gateways::new("/bin/sh".into(), Parent::Itself, Mode::Enforce);
        // `sh gateway` ends at once, with an error: there is no such script.
        let (reply, fds) = gateways.start("lab", None, lifeline.into()).unwrap();
        let Reply::Gateway { folder_fault: None, .. } = reply else { panic!("{reply:?}") };
        assert!(status_at_end(&fds[0]).unwrap().starts_with("exit status: "));
        assert_eq!(status_at_end(&fds[0]), None, "it was waited for");
        assert_eq!(gateways.kill(&fds[0]), Ok(()));
        let refused = gateways.kill(&io::stdin().as_fd().try_clone_to_owned().unwrap());
        assert_eq!(refused.unwrap_err(), "the descriptor is no pidfd");
    }

    /// Starts `sh gateway`, whose script waits, with this title and as this user.
    fn pretend(folder: &Path, title: &str, user: u32) -> Child {
        let mut command = Command::new("/bin/sh");
        command.arg0(title).arg("gateway").current_dir(folder).uid(user).stdin(Stdio::piped());
        let child = command.spawn().unwrap();
        // The kernel shows the arguments once the program runs.
        while fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap().len() < 5 {
            std::thread::yield_now();
        }
        child
    }

    #[test]
    fn only_a_gateway_of_another_helper_is_killed() {
        if !geteuid().is_root() {
            println!("not tested: this takes root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), open).unwrap();
        fs::write(folder.path().join("gateway"), "read end").unwrap();
        let mut gateways = Gateways::new("/bin/true".into(), Parent::Caller, Mode::Enforce);
        let (user, _) = gateways.user.unwrap();
        for (title, user) in [("trama:lab", 0), ("trama:lab", 4711), ("tramad", user)] {
            let mut other = pretend(folder.path(), title, user);
            let refused = gateways.kill(&pidfd_of(&other)).unwrap_err();
            let text = format!("process {} is no gateway and is not ended", other.id());
            assert_eq!(refused, text, "{title} {user}");
            assert!(!has_ended(pidfd_of(&other)));
            other.kill().unwrap();
            other.wait().unwrap();
        }
        let mut gateway = pretend(folder.path(), "trama:lab", user);
        assert_eq!(gateways.kill(&pidfd_of(&gateway)), Ok(()));
        assert_eq!(gateway.wait().unwrap().to_string(), "signal: 9 (SIGKILL)");
    }
}
