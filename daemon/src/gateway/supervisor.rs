//! Keeps one gateway process running.
//!
//! A thread wires a cable, starts the process, and waits until the process ends or hangs, its rings
//! break, or it is told to stop. A process that ends is replaced: after 100 ms at first, after
//! longer pauses (up to 5 s) if it keeps ending. Every process gets a new cable, so memory left by
//! an earlier process is never read. Supervisors take turns at starting their processes
//! ([`Starts`]). A process of an earlier switch goes on, if it can ([`Left`]).

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, MemfdFlags, fstat, memfd_create};
use trama_gateway::Config;
use trama_gateway::control::{Command as Message, Report, ResolverFiles};
use trama_gateway::lifeline::Lifeline;
use trama_gateway::question::Row;
use trama_gateway::report::Status;
use trama_helper::{Entry, GatewayFds, KeptGateway, Rights};
use trama_vhost_net::SwitchPort;
use trama_vhost_net_backend::{Rings, log_limit};

use crate::confinement;
use crate::events::{Events, Limit};

use super::left::Left;
use super::process::{FOLDER_RETRY, Running, end_process, purpose};
use super::questions::{Inquiry, Pending};
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
    /// Starts the gateway of `network` at `port`, when its turn comes. If an earlier switch has
    /// left a process that can go on, the port has its rings when this returns.
    ///
    /// # Errors
    /// A thread or an eventfd could not be created. A process that cannot be started is not an
    /// error: it is tried again.
    pub fn start(
        network: &str,
        (rights, starts, events): (Rights, Arc<Starts>, Arc<Events>),
        mut port: SwitchPort,
        config: Config,
    ) -> io::Result<Supervisor> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (orders, receiver) = channel();
        let status = Arc::<Mutex<GatewayStatus>>::default();
        let left = Left::find(network, (&rights, &mut port), &config);
        let runner = Runner {
            network: network.to_owned(),
            rights,
            port,
            config,
            orders: receiver,
            wake: wake.clone(),
            starts,
            journal: new_journal()?,
            entry: None,
            left,
            status: status.clone(),
            events,
            limit: Limit::new(Instant::now()),
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
    /// The keeper's entry of the last process, or of one before that, with the journal.
    entry: Option<Entry>,
    /// What an earlier switch has left, until the first turn.
    left: Option<Left>,
    status: Arc<Mutex<GatewayStatus>>,
    events: Arc<Events>,
    /// How many events the process may tell of.
    limit: Limit,
}

/// Why a process ended.
enum End {
    Stopped,
    Failed(String),
    /// It cannot follow the new settings, or lacks a folder that can be had now.
    NeedsAnother,
}

fn new_journal() -> io::Result<OwnedFd> {
    Ok(memfd_create("trama-flows", MemfdFlags::CLOEXEC)?)
}

impl Runner {
    fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut is_first = true;
        loop {
            let Some(turn) = self.wait_for_turn() else { return self.end_left() };
            let began = Instant::now();
            let resumed = if std::mem::take(&mut is_first) { self.resume() } else { None };
            let end = match resumed {
                Some(running) => {
                    drop(turn);
                    self.watch(running)
                }
                None => self.run_process(turn),
            };
            self.port.disconnected();
            match end {
                End::Stopped => return,
                End::NeedsAnother => continue,
                End::Failed(reason) => {
                    let network = &self.network;
                    tracing::warn!("network {network}: gateway: {reason}; starts again");
                    self.replaced(reason);
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

    fn lock_status(&self) -> MutexGuard<'_, GatewayStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process has failed, and another one takes its place.
    fn replaced(&self, reason: String) {
        let mut status = self.lock_status();
        status.process = None;
        status.restarts += 1;
        status.last_error = Some(reason);
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

    /// Goes on with the process that an earlier switch has left. If that cannot go on, it is ended,
    /// and the next one gets its journal.
    fn resume(&mut self) -> Option<Running> {
        let (means, before) = ((&self.rights, &mut self.port), self.left.take());
        let left = Left::look_again(before, &self.network, means, &self.config)?;
        let Left { kept: KeptGateway { record, gateway, fds, entry }, fault } = left;
        let GatewayFds { lifeline, journal, .. } = fds;
        let lifeline = Lifeline::from(lifeline);
        self.entry = Some(entry);
        self.lock_status().restarts = record.restarts;
        if fstat(&journal).is_ok_and(|it| FileType::from_raw_mode(it.st_mode).is_file()) {
            self.journal = journal;
        }
        let (fault, gateway, lifeline) = match fault {
            Some(fault) => (fault, gateway, lifeline),
            None => match Running::go_on(gateway, lifeline, &self.config) {
                Ok(running) => return Some(running),
                Err((gateway, lifeline, error)) => (error.to_string(), gateway, lifeline),
            },
        };
        tracing::warn!("network {}: gateway: {fault}; starts again", self.network);
        self.port.disconnected();
        self.replaced(fault);
        end_process(&self.network, gateway, &lifeline, GRACE);
        None
    }

    /// Ends a process that an earlier switch has left and that has not gone on yet.
    fn end_left(self) {
        if let Some(Left { kept: KeptGateway { gateway, fds, .. }, .. }) = self.left {
            end_process(&self.network, gateway, &Lifeline::from(fds.lifeline), GRACE);
        }
    }

    /// Starts a process and returns when it has ended.
    fn run_process(&mut self, turn: Place) -> End {
        let (means, journal) = ((&self.rights, &mut self.port), self.journal.as_fd());
        let running = match Running::start(&self.network, means, &self.config, journal, turn) {
            Err(error) => return End::Failed(format!("cannot be started: {error}")),
            Ok(running) => running,
        };
        confinement::note_missing(&running.gateway.missing);
        if let Some(fault) = &running.gateway.folder_fault {
            let network = &self.network;
            tracing::warn!("network {network}: no DHCP: {fault}; this is tried every second");
        }
        self.watch(running)
    }

    /// Returns when a running process has ended.
    fn watch(&mut self, mut running: Running) -> End {
        match self.supervise(&mut running) {
            End::Failed(reason) => match running.end(&self.network, Duration::ZERO) {
                Some(status) => End::Failed(format!("{reason} ({status})")),
                None => End::Failed(reason),
            },
            end => {
                running.end(&self.network, GRACE);
                end
            }
        }
    }

    /// Keeps a process that is ready for the next switch.
    fn keep(&mut self, running: &mut Running) {
        let Some(cable) = running.cable.take() else { return };
        let restarts = self.lock_status().restarts;
        let about = (&self.rights, &self.config, restarts);
        let fds = (&cable, self.journal.as_fd());
        if let Some(entry) = running.keep(&self.network, about, fds)
            && let Some(before) = self.entry.replace(entry)
        {
            // It has the same key: dropped, it would remove the new one.
            before.leave();
        }
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
            if let Err(reason) = self.read_reports(running).and_then(|()| running.beat()) {
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
                    let fits = purpose(&self.config) == purpose(&config);
                    self.config = *config;
                    if !fits {
                        end = Some(End::NeedsAnother);
                    } else if let Some(running) = running.as_deref_mut() {
                        running.settings_due = true;
                    }
                }
                // With no process, the inquiry is dropped, which tells its sender. The answer is
                // one under the newest settings.
                Order::Ask(inquiry) => {
                    if let Some(running) = running.as_deref_mut() {
                        running.send_settings(&self.config);
                        if running.settings_due {
                            continue;
                        }
                        running.questions.send(inquiry, &mut running.channel);
                        running.heartbeat.used(Instant::now());
                    }
                }
            }
        }
        if let Some(running) = running.filter(|running| !running.channel.is_behind()) {
            running.send_settings(&self.config);
        }
        end
    }

    /// Reads the process's reports; after an error the process must end.
    fn read_reports(&mut self, running: &mut Running) -> Result<(), String> {
        running.channel.flush().map_err(|error| error.to_string())?;
        let reports = running.channel.receive::<Report>().map_err(|error| error.to_string())?;
        let Some(reports) = reports else {
            // It closes its channel as it ends, or for another switch that has this one's place.
            // Then this process is about to end, and must not end the gateway.
            return Err(match running.gateway.ends_within(GRACE) {
                true => "its process ended".into(),
                false => "has closed its channel".into(),
            });
        };
        for report in reports {
            match report {
                Report::Ready { missing } => {
                    confinement::note_missing(&missing);
                    running.heartbeat.answered(Instant::now());
                    running.starting = None;
                    let (network, id) = (&self.network, running.gateway.process);
                    match running.cable {
                        Some(_) => {
                            tracing::info!("network {network}: gateway runs as process {id}")
                        }
                        None => {
                            tracing::info!("network {network}: gateway goes on as process {id}");
                        }
                    }
                    self.keep(running);
                    let mut status = self.lock_status();
                    (status.process, status.counters) = (Some(id), Status::default());
                }
                Report::Status(counters) => {
                    running.heartbeat.used(Instant::now());
                    let mut counters = *counters;
                    if let Some(fault) = &running.gateway.folder_fault {
                        counters.lease_store = Some(fault.clone());
                    }
                    self.lock_status().counters = counters;
                }
                Report::Pong => running.heartbeat.answered(Instant::now()),
                Report::ReadResolvers => self.send_resolvers(running),
                Report::Warning(text) => {
                    // Guests can cause warnings.
                    if let Some(left_out) = log_limit::admit(&self.network, &text) {
                        tracing::warn!("network {}: gateway: {text}{left_out}", self.network);
                    }
                }
                Report::Events { events, lost } => {
                    running.heartbeat.used(Instant::now());
                    self.events.of_gateway(&self.network, events, lost, &mut self.limit);
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
