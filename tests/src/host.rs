//! The interface of hosts in tests, guests and namespaces alike: run commands, ping, measure,
//! capture.

use std::time::Duration;

use crate::process::{SOON, unique, wait_until};

/// The result of a command on a host.
#[derive(Debug, Clone)]
pub struct CommandResult {
    /// Exit status, as in the shell.
    pub status: i32,
    /// Standard output and standard error.
    pub text: String,
}

/// A machine with a shell and a network.
pub trait Host {
    /// Returns a name for messages.
    fn name(&self) -> &str;

    /// Returns a directory on that host for scratch files.
    fn scratch(&self) -> &str;

    /// Runs one line of shell and waits until it ends, at most `limit`.
    fn try_run_for(&self, command: &str, limit: Duration) -> CommandResult;

    /// Runs one line of shell for a minute at most, and accepts any exit status.
    fn try_run(&self, command: &str) -> CommandResult {
        self.try_run_for(command, SOON)
    }

    /// Runs one line of shell that must succeed.
    #[track_caller]
    fn run(&self, command: &str) -> String {
        let answer = self.try_run(command);
        assert!(
            answer.status == 0,
            "{}: `{command}` ended with {}:\n{}",
            self.name(),
            answer.status,
            answer.text
        );
        answer.text
    }

    /// Returns whether `address` answers one of `count` echo requests sent 0.2 s apart, the last
    /// within a second. For tests that expect no answer; others use [`Host::wait_for_ping`].
    fn pings(&self, address: &str, count: u32) -> bool {
        self.try_run(&format!("ping -c {count} -i 0.2 -W 1 {address}")).status == 0
    }

    /// Waits until `address` answers.
    #[track_caller]
    fn wait_for_ping(&self, address: &str, limit: Duration) {
        wait_until(&format!("{} reaches {address}", self.name()), limit, || {
            (self.try_run(&format!("ping -c 1 -W 1 {address}")).status == 0).then_some(())
        });
    }

    /// Returns how many of `count` echo requests got no reply.
    #[track_caller]
    fn ping_losses(&self, address: &str, count: u32) -> u32 {
        let text = self.try_run(&format!("ping -c {count} -i 0.2 -W 20 {address}")).text;
        let received = text
            .lines()
            .find_map(|line| line.split("transmitted, ").nth(1))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse::<u32>().ok());
        count - received.unwrap_or_else(|| panic!("{}: ping said:\n{text}", self.name()))
    }

    /// Starts an iperf3 server in the background and waits until it listens. It serves one run
    /// after the other, and may refuse a run right after another.
    #[track_caller]
    fn start_iperf_server(&self, port: u16) {
        self.start_iperf_server_with(port, "");
    }

    /// Starts an iperf3 server with additional options, such as `-1` for a single run.
    #[track_caller]
    fn start_iperf_server_with(&self, port: u16, options: &str) {
        self.run(&format!("iperf3 -s -D -p {port} {options} >/dev/null 2>&1 </dev/null"));
        // The kernel's own table, as the host may lack ss and netstat.
        let listening = format!("grep -qs ':{port:04X} 0*:0000 0A' /proc/net/tcp /proc/net/tcp6");
        wait_until("iperf3 listens", SOON, || (self.try_run(&listening).status == 0).then_some(()));
    }

    /// Runs an iperf3 client with `options` and returns its JSON report.
    #[track_caller]
    fn iperf(&self, server: &str, port: u16, options: &str) -> serde_json::Value {
        let command = format!("iperf3 -J -c {server} -p {port} {options}");
        // The server stops listening for a moment between two runs.
        wait_until("iperf3's server takes a run", SOON, || {
            let answer = self.try_run_for(&command, Duration::from_secs(90));
            let report: serde_json::Value = serde_json::from_str(&answer.text)
                .unwrap_or_else(|_| panic!("{}: `{command}` said:\n{}", self.name(), answer.text));
            let error = report["error"].as_str().unwrap_or_default().to_owned();
            let is_busy =
                ["unable to connect", "server is busy"].iter().any(|words| error.contains(words));
            let failed = !is_busy && (answer.status != 0 || !error.is_empty());
            assert!(!failed, "{}: `{command}` failed: {error}", self.name());
            (!is_busy).then_some(report)
        })
    }

    /// Returns the bytes received in one iperf3 TCP run.
    #[track_caller]
    fn iperf_received(&self, server: &str, port: u16, options: &str) -> u64 {
        let report = self.iperf(server, port, options);
        report["end"]["sum_received"]["bytes"].as_u64().expect("bytes in iperf3's report")
    }

    /// Starts tcpdump on `interface` and waits until it listens.
    #[track_caller]
    fn capture(&self, interface: &str, filter: &str) -> Capture<'_>
    where
        Self: Sized,
    {
        Capture::start(self, interface, filter)
    }
}

/// A running tcpdump on a host, which decodes into a text file there.
pub struct Capture<'a> {
    host: &'a dyn Host,
    file: String,
    pid: u32,
}

impl<'a> Capture<'a> {
    /// Starts tcpdump on a host's `interface` and waits until it listens.
    #[track_caller]
    pub fn start(host: &'a dyn Host, interface: &str, filter: &str) -> Capture<'a> {
        let file = format!("{}/capture-{}", host.scratch(), unique());
        // -p: promiscuous mode would change what the switch is tested for.
        let command = format!(
            "tcpdump -Z root -i {interface} -nn -e -vv -l '{filter}' \
             >{file} 2>{file}.log </dev/null & echo $!"
        );
        let pid = host.run(&command).trim().parse().expect("tcpdump's process id");
        wait_until("tcpdump listens", SOON, || {
            // The background shell may not have created the file yet.
            host.try_run(&format!("cat {file}.log")).text.contains("listening on").then_some(())
        });
        Capture { host, file, pid }
    }

    /// Returns the output of tcpdump so far.
    pub fn text(&self) -> String {
        self.host.run(&format!("cat {}", self.file))
    }

    /// Waits until `found` returns true for the output.
    #[track_caller]
    pub fn wait_for(&self, what: &str, limit: Duration, found: impl Fn(&str) -> bool) -> String {
        wait_until(&format!("{} sees {what}", self.host.name()), limit, || {
            let text = self.text();
            found(&text).then_some(text)
        })
    }

    /// Ends the capture and summarises it.
    #[track_caller]
    pub fn stop(self) -> CaptureResult {
        self.host.try_run(&format!("kill -INT {}", self.pid));
        let log = wait_until("tcpdump ends", SOON, || {
            let log = self.host.run(&format!("cat {}.log", self.file));
            log.contains("dropped by kernel").then_some(log)
        });
        let number = |what: &str| {
            log.lines()
                .find(|line| line.contains(what))
                .and_then(|line| line.split_whitespace().next())
                .and_then(|number| number.parse().ok())
                .unwrap_or_else(|| panic!("tcpdump said:\n{log}"))
        };
        // Summarised on the host: a guest takes long to send the whole text.
        let count =
            |pattern: &str| self.host.try_run(&format!("grep -cE '{pattern}' {}", self.file));
        let correct = count(r"\(correct\)|udp sum ok").text.trim().parse();
        let wrong = "incorrect|bad (udp )?cksum|wrong icmp cksum";
        CaptureResult {
            frames: number("captured"),
            correct_checksums: correct.expect("a count of lines"),
            wrong_checksums: count(wrong).text.trim().parse().expect("a count of lines"),
            excerpt: self
                .host
                .run(&format!("grep -E '{wrong}' {0} | head -n 10; head -n 20 {0}", self.file)),
        }
    }
}

/// The summary of a [`Capture`].
#[derive(Debug)]
pub struct CaptureResult {
    /// Frames that matched the filter.
    pub frames: u64,
    /// Lines with a checksum that tcpdump found correct.
    pub correct_checksums: u64,
    /// Lines with a checksum that it found wrong.
    pub wrong_checksums: u64,
    /// A few lines, those with wrong checksums first.
    pub excerpt: String,
}

/// Periodic echo requests that run while the test does something else.
pub struct Pinging<'a> {
    host: &'a dyn Host,
    address: String,
    file: String,
    pid: u32,
}

impl<'a> Pinging<'a> {
    /// Starts to ping `address`, which must already answer, every `interval` seconds.
    #[track_caller]
    pub fn start(host: &'a dyn Host, address: &str, interval: f32) -> Pinging<'a> {
        host.wait_for_ping(address, SOON);
        let file = format!("{}/pinging-{}", host.scratch(), unique());
        let command = format!("ping -i {interval} {address} >{file} 2>&1 </dev/null & echo $!");
        let pid = host.run(&command).trim().parse().expect("ping's process id");
        Pinging { host, address: address.to_owned(), file, pid }
    }

    /// Ends it, and checks that every request was answered, except those in flight at the end,
    /// after the last reply.
    #[track_caller]
    pub fn stop_without_loss(self, at_least: u32) {
        self.stop(at_least, 0);
    }

    /// The same, when up to `most` answers may be missing.
    #[track_caller]
    pub fn stop_with_losses(self, most: u32) {
        self.stop(1, most);
    }

    #[track_caller]
    fn stop(self, at_least: u32, most_losses: u32) {
        // A ping sent from now on shows whether replies still come; earlier ones have arrived by
        // then. How many are in flight at the end depends on the machine.
        self.host.wait_for_ping(&self.address, SOON);
        let before = self.answers();
        wait_until("ping has more answers", SOON, || (self.answers() >= before + 5).then_some(()));
        self.host.run(&format!("kill -INT {}", self.pid));
        let report = wait_until("ping ends", SOON, || {
            let text = self.host.run(&format!("tail -n 5 {}", self.file));
            text.contains("packet loss").then_some(text)
        });
        // First and last answered sequence number, and the number of replies; computed on the host,
        // as a guest takes long to send the whole text.
        let answers = self.host.run(&format!(
            "sed -n 's/.*seq=\\([0-9]*\\).*/\\1/p' {} | sort -n | uniq | \
             awk 'NR == 1 {{ first = $1 }} {{ last = $1 }} END {{ print first, last, NR }}'",
            self.file
        ));
        let name = self.host.name();
        let sent = report.lines().find_map(|line| {
            line.split_once(" packets transmitted").and_then(|(n, _)| n.trim().parse::<u32>().ok())
        });
        let sent = sent.unwrap_or_else(|| panic!("{name}: ping said: {report}"));
        let numbers: Vec<u32> = answers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [first, last, answered] = numbers[..] else { panic!("{name}: no answers: {report}") };
        println!("{name}: {sent} echo requests, {answered} answers");
        assert!(sent >= at_least, "{name}: only {sent} echo requests");
        // Linux's ping counts from 1, busybox's from 0.
        let missing = first.saturating_sub(1) + last - first + 1 - answered;
        assert!(missing <= most_losses, "{name}: answers are missing: {answers}");
    }

    /// Returns the longest time to an answer so far, in milliseconds, once more answers have come.
    #[track_caller]
    pub fn longest(&self) -> f64 {
        let before = self.answers();
        wait_until("ping has more answers", SOON, || (self.answers() >= before + 5).then_some(()));
        let times = self.host.run(&format!(
            "sed -n 's/.*time=\\([0-9.]*\\).*/\\1/p' {} | sort -n | tail -n 1",
            self.file
        ));
        times.trim().parse().unwrap_or_else(|_| panic!("times of ping: {times:?}"))
    }

    /// Ends it; returns the longest time to an answer, in milliseconds.
    #[track_caller]
    pub fn end(self) -> f64 {
        let longest = self.longest();
        self.host.run(&format!("kill {}", self.pid));
        longest
    }

    /// Returns the number of replies. The background shell may not have created the file yet.
    fn answers(&self) -> u32 {
        let count = self.host.try_run(&format!("grep -c 'seq=' {}", self.file)).text;
        count.trim().parse().unwrap_or(0)
    }
}

/// Asserts that `from` reaches both addresses of another host, IPv4 and IPv6, or neither.
#[track_caller]
pub fn assert_reaches(from: &impl Host, to: [&str; 2], wanted: bool) {
    for address in to {
        if wanted {
            from.wait_for_ping(address, SOON);
        } else {
            assert!(!from.pings(address, 2), "{} reaches {address}", from.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;

    fn ignore_requests(netns: &Netns, ignore: bool) {
        netns.run(&format!("echo {} >/proc/sys/net/ipv4/icmp_echo_ignore_all", u8::from(ignore)));
    }

    #[test]
    fn a_row_of_requests_ends_while_some_are_on_their_way() {
        let netns = Netns::new("pinging");
        Pinging::start(&netns, "127.0.0.1", 0.002).stop_without_loss(5);
    }

    #[test]
    #[should_panic(expected = "answers are missing")]
    fn a_gap_in_a_row_of_requests_is_noticed() {
        let netns = Netns::new("pinging");
        let pinging = Pinging::start(&netns, "127.0.0.1", 0.01);
        ignore_requests(&netns, true);
        assert!(!netns.pings("127.0.0.1", 1));
        ignore_requests(&netns, false);
        pinging.stop_without_loss(1);
    }
}
