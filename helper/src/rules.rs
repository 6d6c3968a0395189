//! What the helper does for `tramad`, and what it refuses.
//!
//! A subverted `tramad` asks for whatever its master wants. So a request is not granted because
//! `tramad` says that it is configured. What could reach other people's traffic or sockets must be
//! *approved*: its name is a word of the configuration as the operator wrote it, or of a command
//! of `tramactl` that root ran ([`crate::approvals`]). The configuration is read by the helper
//! itself, before `tramad` has heard from a guest and whenever it is read again; words that the
//! file has only because `tramad` saved them are not approved. They stand in a file beside it
//! ([`crate::unapproved`]), so that they are not approved by a restart either.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use ipnet::IpNet;

use crate::unapproved::Note;

/// Most words that are remembered; a configuration of 5000 ports has some 30,000.
const MOST_WORDS: usize = 1 << 20;
/// Where the kernel shows interfaces.
const INTERFACES: &str = "/sys/class/net";

/// A request that is refused; the text has the remedy.
#[derive(Debug, thiserror::Error)]
#[error(
    "{what} is not approved: it is neither in the configuration as it was written by hand nor in \
     a command that root ran; run as root: tramactl approve {}", in_shell(.word)
)]
pub(crate) struct NotApproved {
    what: String,
    word: String,
}

/// The words that are approved.
pub(crate) enum Rules {
    /// In tests: everything is.
    All,
    /// These are.
    Words(Words),
}

/// See [`Rules`].
#[derive(Default)]
pub(crate) struct Words {
    approved: HashSet<String>,
    /// Words that the configuration has, or may have, only because `tramad` had it saved.
    unapproved: HashSet<String>,
    note: Note,
    run: PathBuf,
}

impl Rules {
    /// Rules that approve nothing yet. `run` is the folder of sockets without a path of their own,
    /// `config` the configuration file.
    ///
    /// # Errors
    /// What an earlier helper has noted cannot be read.
    pub(crate) fn new(run: PathBuf, config: &Path) -> io::Result<Rules> {
        let note = Note::beside(config);
        let unapproved = note.read()?;
        Ok(Rules::Words(Words { run, unapproved, note, ..Words::default() }))
    }

    /// Approves the words of the configuration, which was just read, but those that `tramad` had
    /// saved: through this helper or, during a restart, through that of the switch before.
    pub(crate) fn read(&mut self, text: &str) {
        if let Rules::Words(words) = self {
            let Ok(noted) = words.note.read() else { return };
            words.unapproved.extend(noted.into_iter().filter(|it| !words.approved.contains(it)));
            let new = words_of_file(text).filter(|word| !words.unapproved.contains(*word));
            let new: Vec<String> = new.map(str::to_owned).collect();
            words.approve(new);
        }
    }

    /// Notes that `tramad` is about to save this text, beside the one before.
    ///
    /// # Errors
    /// It cannot be noted; then the text must not be saved.
    pub(crate) fn will_save(&mut self, text: &str) -> io::Result<()> {
        let Rules::Words(words) = self else { return Ok(()) };
        let new = words_of_file(text).filter(|word| !words.approved.contains(*word));
        let before = words.unapproved.len();
        words.unapproved.extend(new.map(str::to_owned));
        if words.unapproved.len() == before { Ok(()) } else { words.note.write(&words.unapproved) }
    }

    /// Notes that the text is saved.
    pub(crate) fn saved(&mut self, text: &str) {
        if let Rules::Words(words) = self {
            let there: HashSet<&str> = words_of_file(text).collect();
            words.keep_unapproved(|word| there.contains(word));
        }
    }

    /// Approves the words of a command that root ran. What an argument has after its first equals
    /// sign is a word as a whole, too: a path may have commas and spaces.
    pub(crate) fn approve(&mut self, command: &str) {
        if let Rules::Words(words) = self {
            let values = command.split('\0').filter_map(|word| Some(word.split_once('=')?.1));
            let new = words_of(command).chain(values).filter(|word| !word.is_empty());
            let new: HashSet<String> = new.map(str::to_owned).collect();
            words.keep_unapproved(|word| !new.contains(word));
            words.approve(new);
        }
    }

    /// Checks that an interface of the host, or of a namespace, may be joined.
    pub(crate) fn uplink(&self, ifname: &str, netns: Option<&str>) -> Result<(), NotApproved> {
        self.check(|words| words.has(ifname), || (format!("interface {ifname}"), ifname))?;
        let Some(netns) = netns else { return Ok(()) };
        self.check(|words| words.has(netns), || (format!("network namespace {netns}"), netns))
    }

    /// Checks that a namespace may be entered: a named one, which is there for others to use, or
    /// one whose path is approved.
    pub(crate) fn netns(&self, netns: Option<&str>) -> Result<(), NotApproved> {
        let Some(path) = netns.filter(|netns| netns.starts_with('/')) else { return Ok(()) };
        self.check(|words| words.has(path), || (format!("network namespace {path}"), path))
    }

    /// Checks that a TAP device may be made, or taken if it exists. Returns whether it must be new.
    pub(crate) fn tap(
        &self,
        ifname: &str,
        netns: Option<&str>,
        addresses: &[(IpAddr, u8)],
    ) -> Result<bool, NotApproved> {
        self.netns(netns)?;
        let may_exist = self.check(
            |words| words.has(ifname),
            || (format!("interface {ifname}, which exists,"), ifname),
        );
        // The kernel has the last word; this gives the remedy.
        if netns.is_none() && Path::new(INTERFACES).join(ifname).exists() {
            may_exist?;
            return self.addresses(addresses).map(|()| false);
        }
        self.addresses(addresses).map(|()| may_exist.is_err())
    }

    fn addresses(&self, addresses: &[(IpAddr, u8)]) -> Result<(), NotApproved> {
        for (address, prefix) in addresses {
            let text = format!("{address}/{prefix}");
            let is_fine = |words: &Words| {
                IpNet::new(*address, *prefix)
                    .is_ok_and(|it| is_private(&it) || words.has_network(&it))
            };
            self.check(is_fine, || (format!("public address {text}"), &text))?;
        }
        Ok(())
    }

    /// Checks that a socket of another process may be connected to.
    pub(crate) fn connect(&self, path: &Path) -> Result<(), NotApproved> {
        let text = path.to_string_lossy();
        self.check(|words| words.has_path(path), || (format!("socket {text}"), &text))
    }

    /// Checks that a socket may be made: in the folder of sockets, or where it is approved. What
    /// others will connect to elsewhere is not for `tramad` to take.
    pub(crate) fn listen(&self, path: &Path) -> Result<(), NotApproved> {
        let text = path.to_string_lossy();
        let is_plain = |path: &Path| path.components().all(|it| it != Component::ParentDir);
        let is_fine = |words: &Words| {
            words.has_socket(&text) || path.starts_with(&words.run) && is_plain(path)
        };
        self.check(is_fine, || (format!("socket {text}"), &text))
    }

    /// Checks that a folder or a socket of the daemon is where the operator wants it.
    pub(crate) fn named(&self, path: &Path) -> Result<(), NotApproved> {
        let text = path.to_string_lossy();
        self.word(&text)
    }

    /// Checks that a word of the daemon's settings is the operator's.
    pub(crate) fn word(&self, text: &str) -> Result<(), NotApproved> {
        self.check(|words| words.has(text), || (text.to_owned(), text))
    }

    /// Checks that a socket may have, or connect to, an address of IP with an L4 port.
    pub(crate) fn internet(&self, address: &SocketAddr) -> Result<(), NotApproved> {
        let text = address.to_string();
        self.check(|words| words.has_address(address), || (format!("address {text}"), &text))
    }

    /// Checks that a tunnel may lead to an address of IP.
    pub(crate) fn tunnel(&self, remote: &IpAddr) -> Result<(), NotApproved> {
        let text = remote.to_string();
        self.check(|words| words.has_host(remote), || (format!("address {text}"), &text))
    }

    fn check<'a>(
        &self,
        is_fine: impl FnOnce(&Words) -> bool,
        what: impl FnOnce() -> (String, &'a str),
    ) -> Result<(), NotApproved> {
        match self {
            Rules::Words(words) if !is_fine(words) => {
                let (what, word) = what();
                Err(NotApproved { what, word: word.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

impl Words {
    fn approve(&mut self, words: impl IntoIterator<Item = String>) {
        let room = MOST_WORDS.saturating_sub(self.approved.len());
        self.approved.extend(words.into_iter().take(room));
    }

    /// Forgets the others among the words that are not approved.
    fn keep_unapproved(&mut self, stays: impl Fn(&str) -> bool) {
        let before = self.unapproved.len();
        self.unapproved.retain(|word| stays(word));
        if self.unapproved.len() != before {
            // A note that has more words approves less.
            let _ = self.note.write(&self.unapproved);
        }
    }

    fn has(&self, word: &str) -> bool {
        self.approved.contains(word)
    }

    /// A socket's path may stand alone, or as that of the page.
    fn has_socket(&self, path: &str) -> bool {
        self.has(path) || self.has(&format!("unix:{path}"))
    }

    /// A path is approved as a whole; in the folder of sockets, its name is enough.
    fn has_path(&self, path: &Path) -> bool {
        let has = |part: &OsStr| part.to_str().is_some_and(|part| self.has(part));
        let is_in_folder = path.parent() == Some(&self.run);
        // The socket of a port without a path is called by the port's name.
        let is_named = path.file_name().is_some_and(has) || path.file_stem().is_some_and(has);
        has(path.as_os_str()) || is_in_folder && is_named
    }

    /// An address may stand alone, or after the name of an option.
    fn has_address(&self, wanted: &SocketAddr) -> bool {
        self.approved.iter().any(|word| {
            let text = word.rsplit('=').next().unwrap_or_default();
            text.parse::<SocketAddr>().is_ok_and(|address| address == *wanted)
        })
    }

    /// An address without an L4 port, which may stand after the name of an option.
    fn has_host(&self, wanted: &IpAddr) -> bool {
        self.approved.iter().any(|word| {
            let text = word.rsplit('=').next().unwrap_or_default();
            text.parse::<IpAddr>().is_ok_and(|address| address == *wanted)
        })
    }

    /// A network is approved by itself or one that contains it; an address stands for itself.
    fn has_network(&self, wanted: &IpNet) -> bool {
        self.approved.iter().any(|word| {
            let host = || word.parse::<IpAddr>().ok().map(IpNet::from);
            let approved = word.parse::<IpNet>().ok().or_else(host);
            approved.is_some_and(|approved| approved.contains(wanted))
        })
    }
}

/// Whether the addresses are private, and their prefix is no wider than the private range.
fn is_private(net: &IpNet) -> bool {
    const PRIVATE: [&str; 7] = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
    ];
    PRIVATE.iter().filter_map(|range| range.parse::<IpNet>().ok()).any(|range| range.contains(net))
}

/// A word of a shell, in apostrophes if others would read something into it.
fn in_shell(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=@+,".contains(c);
    match word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// The words of a configuration without its comments.
fn words_of_file(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(without_comment).flat_map(words_of)
}

/// The line up to a `#` outside quotes.
fn without_comment(line: &str) -> &str {
    let (mut quote, mut is_escaped) = (None, false);
    for (at, c) in line.char_indices() {
        match quote {
            Some('"') if is_escaped => is_escaped = false,
            Some('"') if c == '\\' => is_escaped = true,
            Some(open) if c == open => quote = None,
            None if c == '#' => return &line[..at],
            None if c == '"' || c == '\'' => quote = Some(c),
            _ => {}
        }
    }
    line
}

/// The words of a configuration or a command: what stands between quotes, equals signs and the
/// like. What is in quotes is also a word as a whole, and so is an argument of a command.
fn words_of(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split(['"', '\'', '\n', '\0']);
    let words = text.split(|c: char| c.is_whitespace() || "\"'=,[]{}\0".contains(c));
    quoted.chain(words).map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[[network]]\nuplink = \"eth0\" # not eth7\n[[port]]\n\
                        path = \"/vms/a b.sock\"\naddress = \"192.168.56.1/24\"\n";

    /// Rules of a configuration that is nowhere, so that nothing can be noted beside it.
    fn rules() -> Rules {
        let mut rules = Rules::new("/run/trama".into(), Path::new("/not/there.toml")).unwrap();
        rules.read(TEXT);
        rules
    }

    #[test]
    fn what_the_operator_wrote_is_approved_and_no_more() {
        let rules = rules();
        assert!(rules.uplink("eth0", None).is_ok());
        let refused = rules.uplink("eth1", None).unwrap_err().to_string();
        assert!(refused.starts_with("interface eth1 is not approved"), "{refused}");
        assert!(refused.ends_with("run as root: tramactl approve eth1"), "{refused}");
        assert!(rules.uplink("eth7", None).is_err(), "a comment");
        let mut rules = rules;
        let path = Path::new("/vms/x, y #1.sock");
        let refused = rules.listen(path).unwrap_err().to_string();
        assert!(refused.ends_with("tramactl approve '/vms/x, y #1.sock'"), "{refused}");
        rules.approve("set\0Interface\0vm1\0options:path=/vms/x, y #1.sock");
        assert!(rules.listen(path).is_ok());
        assert_eq!(without_comment(r##"a = "x\"#y" # z"##), r##"a = "x\"#y" "##);
        assert_eq!(without_comment("a = 'x\\' # z"), "a = 'x\\' ");
        let sockets = [
            ("/vms/a b.sock", true, true),
            ("/run/docker.sock", false, false),
            ("/run/trama/new.sock", false, true),
            ("/run/trama/../docker.sock", false, false),
        ];
        for (path, connects, listens) in sockets {
            assert_eq!(rules.connect(Path::new(path)).is_ok(), connects, "{path}");
            assert_eq!(rules.listen(Path::new(path)).is_ok(), listens, "{path}");
        }
    }

    #[test]
    fn what_tramad_saves_is_not_approved_by_reading_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("trama.toml");
        let start = |text: &str| {
            let mut rules = Rules::new("/run/trama".into(), &config).unwrap();
            rules.read(text);
            rules
        };
        let mut rules = start(TEXT);
        let forged = format!("{TEXT}uplink = \"eth1\"\n");
        rules.will_save(&forged).unwrap();
        // The file may have either text by now, and a helper may start.
        assert!(start(&forged).uplink("eth1", None).is_err());
        rules.saved(&forged);
        rules.read(&forged);
        assert!(rules.uplink("eth1", None).is_err());
        // The operator adds another one to the saved file.
        let edited = format!("{forged}uplink = \"eth2\"\n");
        for mut rules in [rules, start(&edited)] {
            rules.read(&edited);
            assert!(rules.uplink("eth0", None).is_ok() && rules.uplink("eth2", None).is_ok());
            let refused = rules.uplink("eth1", None).unwrap_err().to_string();
            assert!(refused.ends_with("tramactl approve eth1"), "{refused}");
        }
        // The helper of the switch before has one more saved meanwhile.
        let (mut before, mut next) = (start(&edited), start(&edited));
        let more = format!("{edited}uplink = \"eth4\"\n");
        before.will_save(&more).unwrap();
        next.read(&more);
        assert!(next.uplink("eth4", None).is_err());
        before.saved(&edited);
        // What root approves, and what is in the file no more, need not be noted.
        let mut rules = start(&edited);
        rules.approve("approve\0eth1");
        assert!(start(&edited).uplink("eth1", None).is_ok());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "an empty note");
        rules.will_save("uplink = \"eth3\"").unwrap();
        rules.saved(TEXT);
        assert!(start("uplink = \"eth3\"").uplink("eth3", None).is_ok());
    }

    #[test]
    fn what_cannot_be_noted_is_not_saved() {
        let mut rules = rules();
        assert!(rules.will_save(TEXT).is_ok(), "nothing new");
        assert!(rules.will_save("uplink = \"eth1\"").is_err());
    }

    #[test]
    fn a_command_of_root_approves_its_words() {
        let mut rules = rules();
        rules.approve("add-port\0lab\0up\0--\0set\0Interface\0up\0options:ifname=eth1");
        assert!(rules.uplink("eth1", None).is_ok());
        rules.approve("set\0Interface\0a\0options:path=b.sock");
        assert!(rules.connect(Path::new("/run/trama/b.sock")).is_ok());
        assert!(rules.connect(Path::new("/run/b.sock")).is_err());
    }

    #[test]
    fn a_namespace_is_approved_by_its_path_and_to_be_joined_by_its_name() {
        let mut rules = rules();
        assert_eq!(rules.tap("new0", Some("red"), &[]).ok(), Some(true));
        assert_eq!(rules.tap("eth0", Some("red"), &[]).ok(), Some(false), "approved, may exist");
        assert!(rules.netns(Some("red")).is_ok());
        let path = "/proc/4711/ns/net";
        let refused = rules.tap("new0", Some(path), &[]).unwrap_err().to_string();
        assert!(refused.ends_with("tramactl approve /proc/4711/ns/net"), "{refused}");
        assert!(rules.netns(Some(path)).is_err());
        assert!(rules.uplink("eth0", Some("red")).is_err() && rules.uplink("eth0", None).is_ok());
        rules.approve("set\0Interface\0a\0options:netns=/proc/4711/ns/net");
        assert!(rules.tap("new0", Some(path), &[]).is_ok() && rules.netns(Some(path)).is_ok());
        assert!(rules.uplink("eth0", Some(path)).is_ok());
        rules.approve("red");
        assert!(rules.uplink("eth0", Some("red")).is_ok());
    }

    #[test]
    fn public_addresses_and_existing_interfaces_need_approval() {
        let mut rules = rules();
        let at = |text: &str| {
            let net: IpNet = text.parse().unwrap();
            vec![(net.addr(), net.prefix_len())]
        };
        for fine in ["10.1.2.3/24", "192.168.56.1/24", "fd00::1/64", "fe80::1/64", "10.0.0.1/8"] {
            assert!(rules.tap("new0", None, &at(fine)).is_ok(), "{fine}");
        }
        // One of them contains the address that the operator has named.
        for wrong in [
            "10.0.0.1/7",
            "0.0.0.0/0",
            "192.168.56.9/1",
            "198.51.100.1/24",
            "2001:db8::1/64",
            "::/0",
        ] {
            assert!(rules.tap("new0", None, &at(wrong)).is_err(), "{wrong}");
        }
        rules.approve("set\0Interface\0a\0options:address=198.51.100.7/24\0mac=x\0=203.0.113.1");
        for fine in ["198.51.100.1/24", "198.51.100.1/25", "203.0.113.1/32"] {
            assert!(rules.tap("new0", None, &at(fine)).is_ok(), "{fine}");
        }
        for wrong in ["198.51.100.1/23", "203.0.113.1/24"] {
            assert!(rules.tap("new0", None, &at(wrong)).is_err(), "{wrong}");
        }
        assert!(rules.tap("lo", None, &[]).is_err(), "it exists");
        rules.approve("lo");
        assert!(rules.tap("lo", None, &[]).is_ok());
    }

    #[test]
    fn an_address_is_approved_with_its_port() {
        let mut rules = rules();
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        rules.read("address = \"127.0.0.1:5555\"\nremote = \"[fd00::1]:10001\"\n");
        assert!(rules.internet(&at("127.0.0.1:5555")).is_ok());
        assert!(rules.internet(&at("[fd00::1]:10001")).is_ok());
        let refused = rules.internet(&at("127.0.0.1:22")).unwrap_err().to_string();
        assert!(refused.ends_with("run as root: tramactl approve 127.0.0.1:22"), "{refused}");
        rules.approve("set\0Interface\0a\0options:local=[::1]:7");
        rules.approve("approve\0[::1]:8");
        assert!(rules.internet(&at("[::1]:7")).is_ok() && rules.internet(&at("[::1]:8")).is_ok());
        assert!(rules.internet(&at("[::1]:9")).is_err());
    }

    #[test]
    fn in_tests_everything_is_approved() {
        assert!(
            Rules::All.uplink("eth0", None).is_ok() && Rules::All.connect(Path::new("/x")).is_ok()
        );
    }
}
