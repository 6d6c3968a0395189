//! Keeps one gateway process running.
//!
//! A thread wires a cable, starts the process, and waits until the process ends or hangs, its rings
//! break, or it is told to stop. A process that ends is replaced: after 100 ms at first, after
//! longer pauses (up to 5 s) if it keeps ending. Every process gets a new cable, so memory left by
//! an earlier process is never read. Supervisors take turns at starting their processes
//! ([`Starts`]).

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, memfd_create};
use trama_gateway::Config;
use trama_gateway::control::{Channel, Command as Message, Report, ResolverFiles, send_end};
use trama_gateway::link::{self, Layout};
use trama_gateway::question::Row;
use trama_gateway::report::Status;
use trama_helper::{Gateway, Rights};
use trama_vhost_net::SwitchPort;
use trama_vhost_net_backend::{RingFds, Rings, log_limit};

use crate::confinement;

use super::heartbeat::{Beat, Heartbeat, ProcessState};
use super::questions::{Inquiry, OpenQuestions, Pending};
use super::starts::{Place, Starts};

/// Pause before a gateway that ended is started again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The pause doubles each time the process ends, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A gateway that ran this long starts again after the shortest pause.
const STABLE: Duration = Duration::from_secs(10);
/// How long a gateway may take to end when told to.
const GRACE: Duration = Duration::from_secs(1);
/// A gateway that does not answer by then no longer keeps others from starting.
const STARTING: Duration = Duration::from_secs(5);
/// How often a missing lease folder is tried again.
const FOLDER_RETRY: Duration = Duration::from_secs(1);

/// The state of a gateway.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct GatewayStatus {
    /// The process, if one runs and answers.
    pub process: Option<u32>,
    /// How often a process was replaced.
    pub restarts: u64,
    /// The process's counters; they start at zero with each process.
    pub counters: Status,
    /// Why the last one ended, if one did.
    pub last_error: Option<String>,
}

enum Order {
    Configure(Box<Config>),
    Ask(Inquiry),
    Stop,
}

/// Keeps one gateway process running, on a thread of its own.
pub struct Supervisor {
    orders: Sender<Order>,
    /// Wakes the thread for an order, or for its turn to start a process.
    wake: Arc<OwnedFd>,
    status: Arc<Mutex<GatewayStatus>>,
    thread: JoinHandle<()>,
}

impl Supervisor {
    /// Starts the gateway of `network` at `port`, when its turn comes.
    ///
    /// # Errors
    /// A thread or an eventfd could not be created. A process that cannot be started is not an
    /// error: it is tried again.
    pub fn start(
        network: &str,
        rights: Rights,
        port: SwitchPort,
        config: Config,
        starts: Arc<Starts>,
    ) -> io::Result<Supervisor> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (orders, receiver) = channel();
        let status = Arc::<Mutex<GatewayStatus>>::default();
        let runner = Runner {
            network: network.to_owned(),
            rights,
            port,
            config,
            orders: receiver,
            wake: wake.clone(),
            starts,
            journal: memfd_create("trama-flows", MemfdFlags::CLOEXEC)?,
            status: status.clone(),
        };
        let name = format!("gateway {network}");
        let thread = std::thread::Builder::new().name(name).spawn(|| runner.run())?;
        Ok(Supervisor { orders, wake, status, thread })
    }

    /// Gives the process and its successors new settings.
    pub fn configure(&self, config: Config) {
        self.send(Order::Configure(Box::new(config)));
    }

    /// Asks the process a question; [`Pending::wait`] returns the answer.
    pub fn ask<R: Row>(&self) -> Pending<R> {
        let (inquiry, pending) = Inquiry::new();
        self.send(Order::Ask(inquiry));
        pending
    }

    /// Returns the gateway's state.
    pub fn status(&self) -> GatewayStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the process and waits for its end.
    pub fn stop(self) {
        self.send(Order::Stop);
        if self.thread.join().is_err() {
            tracing::error!("a gateway's supervisor ended by a panic");
        }
    }

    fn send(&self, order: Order) {
        // The thread runs until it is told to stop, and a full counter wakes it as well.
        let _ = self.orders.send(order);
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

/// What the thread owns.
struct Runner {
    network: String,
    rights: Rights,
    port: SwitchPort,
    config: Config,
    orders: Receiver<Order>,
    wake: Arc<OwnedFd>,
    starts: Arc<Starts>,
    /// The file in which each process records its TCP flows for its successor.
    journal: OwnedFd,
    status: Arc<Mutex<GatewayStatus>>,
}

/// Why a process ended.
enum End {
    Stopped,
    Failed(String),
    /// It cannot follow the new settings, or lacks a folder that can be had now.
    NeedsAnother,
}

/// A running process.
struct Running {
    child: Gateway,
    channel: Channel,
    questions: OpenQuestions,
    heartbeat: Heartbeat,
    /// Its turn to start, until it answers.
    starting: Option<Place>,
    /// When the lease folder that it lacks is tried again.
    folder_at: Option<Instant>,
}

/// Whether a running process can follow new settings: those that its cable and the files that it
/// may open were chosen for stay the same.
fn fits(old: &Config, new: &Config) -> bool {
    Layout::of(old) == Layout::of(new)
        && old.tftp == new.tftp
        && old.leasing().is_some() == new.leasing().is_some()
}

impl Runner {
    fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(turn) = self.wait_for_turn() else { return };
            let began = Instant::now();
            let end = self.run_process(turn);
            self.port.disconnected();
            match end {
                End::Stopped => return,
                End::NeedsAnother => continue,
                End::Failed(reason) => {
                    let network = &self.network;
                    tracing::warn!("network {network}: gateway: {reason}; starts again");
                    self.update_status(|status| {
                        status.process = None;
                        status.restarts += 1;
                        status.last_error = Some(reason);
                    });
                }
            }
            if began.elapsed() >= STABLE {
                pause = FIRST_PAUSE;
            }
            if self.wait(pause).is_break() {
                return;
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    fn update_status(&self, change: impl FnOnce(&mut GatewayStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until the process may start; returns `None` if told to stop.
    fn wait_for_turn(&mut self) -> Option<Place> {
        let turn = self.starts.queue(&self.wake);
        while !turn.is_granted() {
            let _ = poll(&mut [PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)], None);
            if let Some(End::Stopped) = self.carry_out_orders(None) {
                return None;
            }
        }
        Some(turn)
    }

    /// Starts a process and returns when it has ended.
    fn run_process(&mut self, turn: Place) -> End {
        match self.start_process(turn) {
            Err(error) => End::Failed(format!("cannot be started: {error}")),
            Ok(mut running) => {
                let end = self.supervise(&mut running);
                match end_process(running, &end) {
                    Some(status) if matches!(end, End::Failed(_)) => match end {
                        End::Failed(reason) => End::Failed(format!("{reason} ({status})")),
                        other => other,
                    },
                    _ => end,
                }
            }
        }
    }

    /// Plugs in a new cable and starts a process at its other end.
    fn start_process(&mut self, turn: Place) -> io::Result<Running> {
        let layout = Layout::of(&self.config);
        let (host, guest) = link::wire(layout).map_err(io::Error::other)?;
        let (ours, theirs) = UnixStream::pair()?;
        let [receive, transmit] = host.rings;
        let wake = host.call.try_clone()?;
        let receive_fds = RingFds { kick: None, call: Some(host.call) };
        let transmit_fds = RingFds { kick: Some(host.kick), call: Some(wake) };
        self.port.set_memory(host.memory).map_err(io::Error::other)?;
        self.port.set_offloads(layout.offloads()).map_err(io::Error::other)?;
        self.port.start(0, receive, receive_fds).map_err(io::Error::other)?;
        self.port.start(1, transmit, transmit_fds).map_err(io::Error::other)?;
        send_end(&ours, &guest, self.journal.as_fd())?;
        let mut channel = Channel::new(ours)?;
        channel.send(&Message::Start { layout, config: self.config.clone() })?;
        let leases = self.config.leasing().is_some();
        let child = self
            .rights
            .start_gateway(&self.network, leases, &theirs.into())
            .map_err(io::Error::other)?;
        confinement::note_missing(&child.missing);
        if let Some(fault) = &child.folder_fault {
            let network = &self.network;
            tracing::warn!("network {network}: no DHCP: {fault}; this is tried every second");
        }
        let (questions, starting) = (OpenQuestions::default(), Some(turn));
        let heartbeat = Heartbeat::new(Instant::now());
        let folder_at = child.folder_fault.is_some().then(|| Instant::now() + FOLDER_RETRY);
        Ok(Running { child, channel, questions, starting, heartbeat, folder_at })
    }

    /// Handles orders and reports until the process ends or must end.
    fn supervise(&mut self, running: &mut Running) -> End {
        loop {
            let mut flags = PollFlags::IN;
            if running.channel.is_behind() {
                flags |= PollFlags::OUT;
            }
            let fault = self.port.fault_event();
            let mut waiting = vec![
                PollFd::new(&running.channel, flags),
                PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN),
            ];
            waiting.extend(fault.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let left = running.heartbeat.deadline().saturating_duration_since(Instant::now());
            let left = if running.starting.is_some() { left.min(STARTING) } else { left };
            let left = match running.folder_at {
                Some(at) => left.min(at.saturating_duration_since(Instant::now())),
                None => left,
            };
            // One that is too long for the type is no limit.
            let limit = Timespec::try_from(left).ok();
            match poll(&mut waiting, limit.as_ref()) {
                Ok(0) if running.folder_at.is_some_and(|at| at <= Instant::now()) => {
                    if self.has_folder_now(running) {
                        return End::NeedsAnother;
                    }
                }
                Ok(0) => running.starting = None,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return End::Failed(error.to_string()),
            }
            if let Some(end) = self.carry_out_orders(Some(running)) {
                return end;
            }
            if let Some(event) = self.port.fault_event() {
                // Emptied: otherwise the fault of an earlier process would keep waking the thread.
                let _ = rustix::io::read(event, &mut [0; 8]);
            }
            if let Some(fault) = self.port.broken() {
                return End::Failed(fault.to_string());
            }
            if let Err(reason) = self.read_reports(running).and_then(|()| beat(running)) {
                return End::Failed(reason);
            }
        }
    }

    /// Carries out waiting orders. Returns `Some` if the process must end.
    fn carry_out_orders(&mut self, mut running: Option<&mut Running>) -> Option<End> {
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        let mut end = None;
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Stop => return Some(End::Stopped),
                Order::Configure(config) => {
                    let fits = fits(&self.config, &config);
                    self.config = *config;
                    if !fits {
                        end = Some(End::NeedsAnother);
                    } else if let Some(running) = running.as_deref_mut() {
                        // A closed channel is noticed when it is read.
                        let _ = running.channel.send(&Message::Configure(self.config.clone()));
                        running.heartbeat.used(Instant::now());
                    }
                }
                // With no process, the inquiry is dropped, which tells its sender.
                Order::Ask(inquiry) => {
                    if let Some(running) = running.as_deref_mut() {
                        running.questions.send(inquiry, &mut running.channel);
                        running.heartbeat.used(Instant::now());
                    }
                }
            }
        }
        end
    }

    /// Reads the process's reports; after an error the process must end.
    fn read_reports(&mut self, running: &mut Running) -> Result<(), String> {
        running.channel.flush().map_err(|error| error.to_string())?;
        let reports = running.channel.receive::<Report>().map_err(|error| error.to_string())?;
        for report in reports.ok_or("its process ended")? {
            match report {
                Report::Ready { missing } => {
                    confinement::note_missing(&missing);
                    running.heartbeat.answered(Instant::now());
                    running.starting = None;
                    let id = running.child.process;
                    tracing::info!("network {}: gateway runs as process {id}", self.network);
                    self.update_status(|status| {
                        status.process = Some(id);
                        status.counters = Status::default();
                    });
                }
                Report::Status(counters) => {
                    running.heartbeat.used(Instant::now());
                    let mut counters = *counters;
                    if let Some(fault) = &running.child.folder_fault {
                        counters.lease_store = Some(fault.clone());
                    }
                    self.update_status(|status| status.counters = counters);
                }
                Report::Pong => running.heartbeat.answered(Instant::now()),
                Report::ReadResolvers => self.send_resolvers(running),
                Report::Warning(text) => {
                    // Guests can cause warnings.
                    if let Some(left_out) = log_limit::admit(&self.network, &text) {
                        tracing::warn!("network {}: gateway: {text}{left_out}", self.network);
                    }
                }
                Report::Answer { id, part, last } => running.questions.receive(id, part, last),
            }
        }
        Ok(())
    }

    /// Sends the files in which the host's resolvers are stated.
    fn send_resolvers(&self, running: &mut Running) {
        match self.rights.resolvers() {
            Ok([resolv_conf, stub_upstream]) => {
                let files = ResolverFiles { resolv_conf, stub_upstream };
                // A closed channel is noticed when it is read.
                let _ = running.channel.send(&Message::Resolvers(files));
            }
            Err(error) => tracing::debug!("network {}: resolvers: {error}", self.network),
        }
    }

    /// Whether the lease folder that the process lacks can be had now. A new process then takes it:
    /// the old one is confined to the files that it had when it started.
    fn has_folder_now(&self, running: &mut Running) -> bool {
        running.folder_at = Some(Instant::now() + FOLDER_RETRY);
        self.rights.lease_folder(&self.network).is_ok()
    }

    /// Waits before the next try; breaks if told to stop.
    fn wait(&mut self, pause: Duration) -> ControlFlow<()> {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(limit) = Timespec::try_from(left) else { return ControlFlow::Continue(()) };
            let _ = poll(
                &mut [PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)],
                Some(&limit),
            );
            if let Some(End::Stopped) = self.carry_out_orders(None) {
                return ControlFlow::Break(());
            }
            if Instant::now() >= until {
                return ControlFlow::Continue(());
            }
        }
    }
}

/// Asks the process whether it is alive if that is due; an error if it hangs.
fn beat(running: &mut Running) -> Result<(), String> {
    let process = running.child.process;
    match running.heartbeat.beat(Instant::now(), || ProcessState::read(process)) {
        Beat::Rest => Ok(()),
        Beat::Ask => running.channel.send(&Message::Ping).map_err(|error| error.to_string()),
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

/// Ends a process and returns its exit status.
fn end_process(running: Running, end: &End) -> Option<String> {
    let Running { child, channel, .. } = running;
    if !matches!(end, End::Failed(_)) {
        // The process ends when this half of its channel closes; the other half closes with it.
        let stream = channel.into_stream();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.set_nonblocking(false);
        let _ = stream.set_read_timeout(Some(GRACE));
        let until = Instant::now() + GRACE;
        let mut reports = [0; 4096];
        while Instant::now() < until
            && io::Read::read(&mut &stream, &mut reports).is_ok_and(|length| length > 0)
        {}
    }
    child.kill();
    child.wait()
}
