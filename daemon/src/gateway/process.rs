//! A gateway process with what leads to it: its lifeline, its channel, its cable to the port.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use trama_gateway::Config;
use trama_gateway::control::{Channel, Command as Message, PROTOCOL};
use trama_gateway::lifeline::Lifeline;
use trama_gateway::link::{self, GuestEnd, HostEnd, Layout};
use trama_helper::{Entry, Gateway, GatewayFds, GatewayRecord, Rights};
use trama_vhost_net::SwitchPort;
use trama_vhost_net_backend::{RingFds, Rings};

use super::heartbeat::{Beat, Heartbeat, ProcessState};
use super::questions::OpenQuestions;
use super::starts::Place;

/// How often a missing lease folder is tried again.
pub(super) const FOLDER_RETRY: Duration = Duration::from_secs(1);
/// The version of the program.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A running process.
pub(super) struct Running {
    pub(super) gateway: Gateway,
    lifeline: Lifeline,
    pub(super) channel: Channel,
    pub(super) questions: OpenQuestions,
    /// Whether it has not been sent the newest settings yet.
    pub(super) settings_due: bool,
    pub(super) heartbeat: Heartbeat,
    /// Its turn to start, until it answers.
    pub(super) starting: Option<Place>,
    /// When the lease folder that it lacks is tried again.
    pub(super) folder_at: Option<Instant>,
    /// Its end of the cable, until it is ready and the keeper gets that.
    pub(super) cable: Option<GuestEnd>,
}

/// What a process's cable and the files that it may open are chosen for. It can follow new settings
/// for which this is the same.
pub(super) fn purpose(config: &Config) -> Vec<u8> {
    let purpose = (Layout::of(config), &config.tftp, config.leasing().is_some());
    // There is nothing in it that JSON cannot say.
    serde_json::to_vec(&purpose).unwrap_or_default()
}

/// Gives the port its end of a cable.
pub(super) fn plug(port: &mut SwitchPort, layout: Layout, end: HostEnd) -> io::Result<()> {
    let HostEnd { memory, rings: [receive, transmit], kick, call } = end;
    let wake = call.try_clone()?;
    port.set_memory(memory).map_err(io::Error::other)?;
    port.set_offloads(layout.offloads()).map_err(io::Error::other)?;
    let fds = RingFds { kick: None, call: Some(call) };
    port.start(0, receive, fds).map_err(io::Error::other)?;
    let fds = RingFds { kick: Some(kick), call: Some(wake) };
    port.start(1, transmit, fds).map_err(io::Error::other)
}

impl Running {
    /// Plugs in a new cable and starts a process at its other end.
    pub(super) fn start(
        network: &str,
        (rights, port): (&Rights, &mut SwitchPort),
        config: &Config,
        journal: BorrowedFd<'_>,
        turn: Place,
    ) -> io::Result<Running> {
        let layout = Layout::of(config);
        let (host, cable) = link::wire(layout).map_err(io::Error::other)?;
        plug(port, layout, host)?;
        let (lifeline, its_end) = Lifeline::new()?;
        let (ours, theirs) = UnixStream::pair()?;
        lifeline.start(theirs.as_fd(), &cable, journal)?;
        let mut channel = Channel::new(ours)?;
        channel.send(&Message::Start { layout, config: config.clone() })?;
        let leases = config.leasing().is_some();
        let gateway = rights.start_gateway(network, leases, &its_end).map_err(io::Error::other)?;
        let heartbeat = Heartbeat::new(Instant::now());
        let running = Running::at(gateway, lifeline, channel, heartbeat);
        Ok(Running { starting: Some(turn), cable: Some(cable), ..running })
    }

    /// Goes on with a process of an earlier switch, whose rings the port has already.
    pub(super) fn go_on(
        gateway: Gateway,
        lifeline: Lifeline,
        config: &Config,
    ) -> Result<Running, (Gateway, Lifeline, io::Error)> {
        let connect = || {
            let (ours, theirs) = UnixStream::pair()?;
            lifeline.replace_channel(theirs.as_fd())?;
            let mut channel = Channel::new(ours)?;
            // They may have changed since the last switch has read them.
            channel.send(&Message::Configure(config.clone()))?;
            Ok(channel)
        };
        match connect() {
            Ok(channel) => {
                let state = ProcessState::read(gateway.process);
                let heartbeat = Heartbeat::asked(Instant::now(), state);
                Ok(Running::at(gateway, lifeline, channel, heartbeat))
            }
            Err(error) => Err((gateway, lifeline, error)),
        }
    }

    fn at(gateway: Gateway, lifeline: Lifeline, channel: Channel, heartbeat: Heartbeat) -> Running {
        let folder_at = gateway.folder_fault.is_some().then(|| Instant::now() + FOLDER_RETRY);
        Running {
            gateway,
            lifeline,
            channel,
            questions: OpenQuestions::default(),
            settings_due: false,
            heartbeat,
            starting: None,
            folder_at,
            cable: None,
        }
    }

    /// Keeps the process for the next switch. `restarts`: how often it was replaced.
    pub(super) fn keep(
        &self,
        network: &str,
        (rights, config, restarts): (&Rights, &Config, u64),
        (cable, journal): (&GuestEnd, BorrowedFd<'_>),
    ) -> Option<Entry> {
        let record = GatewayRecord {
            version: VERSION.to_owned(),
            protocol: PROTOCOL,
            process: self.gateway.process,
            purpose: purpose(config),
            folder_fault: self.gateway.folder_fault.clone(),
            restarts,
        };
        let fds = GatewayFds {
            lifeline: self.lifeline.as_fd(),
            memory: cable.memory.as_fd(),
            kick: cable.kick.as_fd(),
            call: cable.call.as_fd(),
            journal,
        };
        rights.keep_gateway(network, &record, &fds, &self.gateway)
    }

    /// Sends the newest settings if they are due and the channel takes them. Those that change
    /// while it is full are sent once.
    pub(super) fn send_settings(&mut self, config: &Config) {
        if self.settings_due && !self.channel.is_full() {
            self.settings_due = false;
            // A closed channel is noticed when it is read.
            let _ = self.channel.send(&Message::Configure(config.clone()));
            self.heartbeat.used(Instant::now());
        }
    }

    /// Asks the process whether it is alive if that is due; an error if it hangs.
    pub(super) fn beat(&mut self) -> Result<(), String> {
        let process = self.gateway.process;
        match self.heartbeat.beat(Instant::now(), || ProcessState::read(process)) {
            Beat::Rest => Ok(()),
            Beat::Ask => self.channel.send(&Message::Ping).map_err(|error| error.to_string()),
            Beat::GiveUp(late) => {
                let state = ProcessState::read(process).map_or('X', |state| state.letter);
                // Where in the kernel it waits; readable for root.
                let place = std::fs::read_to_string(format!("/proc/{process}/wchan"));
                let place = place.ok().filter(|text| text.len() > 1).unwrap_or_else(|| "-".into());
                let late = late.as_secs();
                Err(format!("does not answer for {late} s (state {state}, waits in {place})"))
            }
        }
    }

    /// Ends the process, at once if it has not ended by itself within `grace`. Returns its exit
    /// status, if it is known.
    pub(super) fn end(self, network: &str, grace: Duration) -> Option<String> {
        end_process(network, self.gateway, &self.lifeline, grace)
    }
}

/// See [`Running::end`].
pub(super) fn end_process(
    network: &str,
    gateway: Gateway,
    lifeline: &Lifeline,
    grace: Duration,
) -> Option<String> {
    lifeline.end();
    if !gateway.ends_within(grace)
        && let Err(error) = gateway.kill()
    {
        tracing::warn!("network {network}: gateway: {error}");
        return None;
    }
    gateway.status()
}
