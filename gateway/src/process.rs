//! The gateway process: an engine, its link, its channel to the daemon, and the event loop around
//! them.
//!
//! It is started with one end of its lifeline as standard input, and ends with that and on SIGTERM.
//! Without a daemon it goes on, until the next one passes it another channel. Before the first
//! frame it has given up all that it does not need (`confinement`).

mod reports;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use reports::Reported;
use rustix::io::Errno;
use rustix::thread::set_name;
use signal_hook::consts::SIGTERM;
use trama_frame::VnetHeader;
use trama_nat::{Context, FIRST_TOKEN, Handled, Nat, PortMark};
use trama_sandbox::ignore_signals;
use trama_virtqueue::DriverError;

use crate::clock::Clock;
use crate::config::Config;
use crate::confinement::Confinement;
pub use crate::confinement::{Options, confine};
use crate::control::{Channel, Command, Report};
use crate::daemon::Daemon;
use crate::dns::resolvers::Resolvers;
use crate::dns::sockets::Sockets;
use crate::drop_reason::NatDrop;
use crate::gateway::Gateway;
use crate::io::Output;
use crate::lease_store::LeaseStore;
use crate::lifeline::{Found, GatewayEnd, Start};
use crate::link::{Layout, Link, RingFrame};
use crate::question::{Answer, Question};

const CABLE: Token = Token(0);
const CONTROL: Token = Token(1);
const TERMINATE: Token = Token(2);
const WRITTEN: Token = Token(3);
const LIFELINE: Token = Token(4);
/// Tokens of sockets to DNS servers, from here on.
const SERVERS: usize = 5;

/// Frames received in one turn.
const BATCH: usize = 64;
/// Datagrams received from one DNS server's socket in one turn.
const ANSWERS: usize = 16;
/// Queries sent to DNS servers in one turn.
const ASKS: usize = 16;
/// Frames that may wait for room on the ring; more are dropped.
const BACKLOG: usize = 4096;
/// See [`keep_heap`].
const KEPT_HEAP: usize = 4 << 20;

/// Why a gateway process fails.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A system call failed, or the daemon sent an unexpected message.
    #[error("gateway: {0}")]
    System(#[from] io::Error),
    /// Another process may read it.
    #[error("the folder of boot files is another one now, which takes another gateway process")]
    BootFolder,
    /// The link to the switch failed.
    #[error("gateway's link to the switch: {0}")]
    Cable(#[from] DriverError),
}

/// Runs a gateway until its lifeline, which is standard input, ends. Every flow is a descriptor:
/// the process has the limit of open files that its caller has.
///
/// # Errors
///
/// The gateway failed. The daemon starts another one.
pub fn run(options: Options) -> Result<(), ProcessError> {
    take_name();
    ignore_signals(&[])?;
    let confinement = Confinement::begin(options)?;
    let lifeline = GatewayEnd::new(io::stdin().as_fd().try_clone_to_owned()?)?;
    keep_heap();
    let (mut process, commands) = Process::start(lifeline, confinement)?;
    process.configure_nat();
    process.daemon.send(&Report::Ready { missing: process.missing.clone() });
    let ended = process.carry_out(commands).and_then(|()| process.serve());
    if let Err(error) = &ended {
        // The daemon logs it with the gateway's name.
        process.daemon.warn(error.to_string());
    }
    ended
}

/// Sets the process's name to the first argument, `trama:NETWORK`, as far as its 15 bytes go. The
/// kernel set it to the name of the executed file, `exe`.
fn take_name() {
    let title = std::env::args_os().next().unwrap_or_default();
    // Without the name, the gateway still runs.
    let _ = CString::new(title.into_encoded_bytes()).map(|title| set_name(&title));
}

/// Makes the heap keep up to twice this size of freed memory. A stream frees and allocates that
/// much many times a second, and returning it to the kernel each time costs a third of the
/// throughput. glibc raises its threshold when a block of this size is freed (mallopt(3),
/// `M_MMAP_THRESHOLD`).
fn keep_heap() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT_HEAP)));
}

struct Process {
    poll: Poll,
    link: Link,
    gateway: Gateway,
    nat: Nat,
    lifeline: GatewayEnd,
    daemon: Daemon,
    /// What of the sandbox is not in force, for each daemon.
    missing: Vec<String>,
    /// The settings as the daemon has sent them.
    configured: Config,
    /// Becomes readable on SIGTERM.
    _terminate: UnixStream,
    resolvers: Resolvers,
    sockets: Sockets,
    store: Option<LeaseStore>,
    /// Wakes the loop when the lease store has written something.
    written: Arc<Waker>,
    clock: Clock,
    out: Output,
    /// `None`: this daemon was told nothing yet.
    reported: Option<Reported>,
    /// When the next status report may be sent.
    report_at: Duration,
    /// When events may be reported next.
    events_at: Duration,
    confinement: Confinement,
}

impl Process {
    /// Receives the link and the first settings, which blocks until they arrive, and completes the
    /// confinement. Also returns the commands that came with them.
    fn start(
        lifeline: GatewayEnd,
        confinement: Confinement,
    ) -> Result<(Process, Vec<Command>), ProcessError> {
        let Start { channel, cable, journal } = lifeline.wait_for_start()?;
        let mut channel = Channel::new(channel)?;
        let poll = Poll::new()?;
        register(poll.registry(), &lifeline, LIFELINE, Interest::READABLE)?;
        let (terminate, signalled) = UnixStream::pair()?;
        terminate.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGTERM, signalled)?;
        register(poll.registry(), &terminate, TERMINATE, Interest::READABLE)?;
        let FirstCommand { layout, config, others } = first_command(&mut channel)?;
        let daemon = Daemon::new(channel, poll.registry(), CONTROL)?;
        let link = Link::attach(layout, cable)?;
        register(poll.registry(), &link.event(), CABLE, Interest::READABLE)?;
        let clock = Clock::start();
        let resolvers = Resolvers::of_host(clock.now());
        let mut gateway = Gateway::new(config.clone(), Box::new(random));
        gateway.set_servers(resolvers.servers().to_vec());
        gateway.set_search(resolvers.search());
        let mut nat = Nat::default();
        nat.open_journal(journal.into())?;
        let written = Arc::new(Waker::new(poll.registry(), WRITTEN)?);
        let mut process = Process {
            poll,
            link,
            gateway,
            nat,
            lifeline,
            daemon,
            missing: Vec::new(),
            configured: config,
            _terminate: terminate,
            resolvers,
            sockets: Sockets::new(SERVERS),
            store: None,
            written,
            clock,
            out: Output::default(),
            reported: None,
            report_at: Duration::ZERO,
            events_at: Duration::ZERO,
            confinement,
        };
        process.confinement.complete(process.gateway.config().tftp.as_deref())?;
        process.missing = process.confinement.take_missing();
        process.open_store();
        Ok((process, others))
    }

    /// Opens the lease store, if the settings have one and it is not open.
    fn open_store(&mut self) {
        let Some(name) = self.gateway.config().leasing().map(|dhcp| dhcp.folder.clone()) else {
            self.store = None;
            self.gateway.close_leases();
            return;
        };
        if self.store.as_ref().is_some_and(|store| store.serves(&name)) {
            return;
        }
        let folder = self.confinement.leases.as_ref().map(OwnedFd::try_clone).transpose();
        let store = folder.and_then(|folder| match folder {
            Some(folder) => LeaseStore::open(&name, folder, self.written.clone()),
            None => Ok(LeaseStore::without_folder(&name)),
        });
        match store {
            Ok(store) => self.store = Some(store),
            Err(error) => self.gateway.warn(format!("no DHCP: cannot start the thread: {error}")),
        }
        self.open_leases();
    }

    /// Starts to lease addresses once the store is open.
    fn open_leases(&mut self) {
        if let Some(records) = self.store.as_mut().and_then(LeaseStore::take_opened) {
            self.gateway.open_leases(self.now(), self.clock.epoch(), records);
        }
    }

    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn serve(&mut self) -> Result<(), ProcessError> {
        let mut events = Events::with_capacity(64);
        loop {
            self.refresh_resolvers();
            let more = self.receive_batch()?;
            self.gateway.poll(self.now(), &mut self.out);
            let now = self.now();
            self.with_nat(now, |nat, context| nat.poll(context));
            for (client, question) in self.nat.take_questions() {
                self.gateway.handle_tcp_query(now, client, &question, &mut self.out);
            }
            self.flush_output()?;
            self.send_warnings();
            self.send_status();
            self.send_events();
            let asked = self.answer_questions();
            let has_asks = !self.out.upstream.is_empty();
            let at_once = more || asked || has_asks || self.can_send_again();
            let limit = if at_once { Some(Duration::ZERO) } else { self.deadline() };
            match self.poll.poll(&mut events, limit) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    CONTROL => self.control()?,
                    LIFELINE if !self.follow_lifeline()? => return Ok(()),
                    LIFELINE => {}
                    TERMINATE => return Ok(()),
                    // The results are collected in the next turn.
                    WRITTEN => {}
                    Token(FIRST_TOKEN..) => {
                        let now = self.now();
                        self.with_nat(now, |nat, context| nat.ready(event, context));
                    }
                    token => self.receive_dns(token),
                }
            }
        }
    }

    /// How long the loop may sleep.
    fn deadline(&self) -> Option<Duration> {
        let report = self.has_news().then_some(self.report_at);
        let store = self.store.as_ref().and_then(LeaseStore::deadline);
        let services = [self.gateway.deadline(), self.nat.deadline(self.now()), store];
        let events = self.can_send_events().then_some(self.events_at);
        let own = report.into_iter().chain(events);
        let next = own.chain(services.into_iter().flatten()).min();
        next.map(|at| at.saturating_sub(self.now()))
    }

    /// Applies changes of the host's resolvers before queries are handled.
    fn refresh_resolvers(&mut self) {
        if self.resolvers.refresh(self.now()) {
            self.apply_resolvers();
        }
        if self.daemon.is_there() && self.resolvers.wants_help() {
            self.daemon.send(&Report::ReadResolvers);
        }
    }

    fn apply_resolvers(&mut self) {
        self.gateway.set_servers(self.resolvers.servers().to_vec());
        self.gateway.set_search(self.resolvers.search());
    }

    /// Receives from a DNS server.
    fn receive_dns(&mut self, token: Token) {
        let Some(slot) = self.sockets.slot(token) else { return };
        let (now, wanted) = (self.now(), self.out.upstream.len());
        // More would be a flood.
        for _ in 0..ANSWERS {
            match self.sockets.receive(slot) {
                Ok(Some(bytes)) => self.gateway.server_answered(now, slot, bytes, &mut self.out),
                Ok(None) => return,
                Err(()) => return self.gateway.server_failed(now, slot, &mut self.out),
            }
            // The slot may be in use for another query now.
            if self.out.upstream.len() > wanted {
                return;
            }
        }
    }

    /// Executes some of the engine's requests to its sockets, in order. Opening a socket takes as
    /// long as many frames, which would be lost meanwhile.
    fn execute_upstream(&mut self) {
        let some = self.out.upstream.len().min(ASKS);
        for wanted in self.out.upstream.drain(..some).collect::<Vec<_>>() {
            let Err((slot, error)) = self.sockets.execute(self.poll.registry(), wanted) else {
                continue;
            };
            if [Some(Errno::MFILE), Some(Errno::NFILE)].contains(&Errno::from_io_error(&error)) {
                self.gateway.count_drop(NatDrop::FileLimit);
            }
            // The engine then queries the next server.
            self.gateway.server_failed(self.now(), slot, &mut self.out);
        }
    }

    /// Receives and answers a batch of frames. Returns whether more are waiting.
    fn receive_batch(&mut self) -> Result<bool, ProcessError> {
        self.link.disarm();
        self.link.tx().disarm_room();
        let now = self.now();
        let mut taken = 0;
        while taken < BATCH && self.receive_frame(now)? {
            taken += 1;
        }
        self.link.refill();
        self.flush_output()?;
        Ok(taken == BATCH || self.link.arm())
    }

    /// Receives a frame, and passes it to the NAT or to the gateway's services. Returns false if
    /// there is none.
    fn receive_frame(&mut self, now: Duration) -> Result<bool, DriverError> {
        let Process { link, gateway, nat, poll, out, .. } = self;
        let Some(RingFrame { mut header, frame, tx: cable }) = link.receive()? else {
            return Ok(false);
        };
        // The switch stores the mark of the ingress port there.
        let port = PortMark(std::mem::take(&mut header.hdr_len).into());
        let context = &mut gateway.shared.context(now, poll.registry(), cable);
        match nat.receive(port, header, frame, context) {
            Handled::Consumed => {}
            Handled::Local(local) => gateway.handle_parsed(now, &local, out),
            Handled::Reassembled(frame) => gateway.handle(now, port, &frame, out),
        }
        Ok(true)
    }

    fn configure_nat(&mut self) {
        let now = self.now();
        self.with_nat(now, |nat, context| nat.configure(context));
    }

    /// Runs `job` on the NAT.
    fn with_nat<R>(
        &mut self,
        now: Duration,
        job: impl FnOnce(&mut Nat, &mut Context<'_>) -> R,
    ) -> R {
        let (registry, cable) = (self.poll.registry(), self.link.tx());
        job(&mut self.nat, &mut self.gateway.shared.context(now, registry, cable))
    }

    /// Whether frames that wait for room on the ring can be sent now; if not, a wake-up is enabled.
    fn can_send_again(&mut self) -> bool {
        let waits = self.nat.is_blocked() || !self.out.frames.is_empty();
        let tx = self.link.tx();
        waits && (tx.room() > 0 || tx.arm_room())
    }

    /// Carries out the engine's output.
    fn flush_output(&mut self) -> Result<(), ProcessError> {
        self.execute_upstream();
        for (stream, message) in self.out.streams.drain(..) {
            self.nat.answer(stream, message.as_deref());
        }
        let (now, gateway) = (self.now(), &self.gateway);
        if let Some(store) = &mut self.store {
            store.exchange(now, || gateway.lease_snapshot(), &mut self.out);
        }
        self.open_leases();
        let (mut done, all) = (0, self.out.frames.len());
        for frame in &self.out.frames {
            match self.link.tx().send(&VnetHeader::default(), &[frame]) {
                Ok(()) => {}
                // The rest waits for room.
                Err(NatDrop::RingFull) if all - done <= BACKLOG => break,
                Err(reason) => self.gateway.count_drop(reason),
            }
            done += 1;
        }
        self.out.frames.drain(..done);
        Ok(self.link.tx().flush()?)
    }

    /// Looks for the next daemon. Returns false if none is to come.
    fn follow_lifeline(&mut self) -> Result<bool, ProcessError> {
        // Events are edge-triggered: look until nothing is left.
        loop {
            match self.lifeline.look()? {
                Found::Nothing => return Ok(true),
                Found::End => return Ok(false),
                Found::Channel(stream) => {
                    self.daemon.replace(stream, self.poll.registry())?;
                    self.daemon.send(&Report::Ready { missing: self.missing.clone() });
                    self.daemon.send_waiting();
                    (self.reported, self.report_at) = (None, Duration::ZERO);
                    // What it has sent already may be no event any more.
                    self.control()?;
                }
            }
        }
    }

    /// Handles the daemon's commands.
    fn control(&mut self) -> Result<(), ProcessError> {
        loop {
            let commands = self.daemon.receive()?;
            // Events are edge-triggered: read until nothing is left.
            if commands.is_empty() {
                return Ok(());
            }
            self.carry_out(commands)?;
        }
    }

    fn carry_out(&mut self, commands: Vec<Command>) -> Result<(), ProcessError> {
        for command in commands {
            match command {
                Command::Start { .. } => {
                    return Err(io::Error::other("the daemon sent a second start command").into());
                }
                Command::Configure(config) => self.configure(config)?,
                Command::Ask { id, question } => self.daemon.ask(id, question),
                Command::Ping => self.daemon.send(&Report::Pong),
                Command::Resolvers(files) => {
                    if self.resolvers.take(&files) {
                        self.apply_resolvers();
                    }
                }
            }
        }
        Ok(())
    }

    fn configure(&mut self, config: Config) -> Result<(), ProcessError> {
        if self.confinement.has_other_boot_folder(config.tftp.as_deref()) {
            return Err(ProcessError::BootFolder);
        }
        // Each daemon sends its settings. If they are the same, nothing under way is disturbed.
        if config != self.configured {
            self.configured.clone_from(&config);
            self.gateway.reconfigure(config);
            self.open_store();
            self.configure_nat();
        }
        Ok(())
    }

    /// Answers the daemon's questions. Returns whether there is more to answer.
    fn answer_questions(&mut self) -> bool {
        let Process { gateway, nat, daemon, clock, .. } = self;
        let now = clock.now();
        daemon.answer(|question| match question {
            Question::Leases => Answer::Leases(gateway.lease_rows(now)),
            Question::Forwards => Answer::Forwards(nat.forward_rows(gateway.config().nat())),
            Question::Flows => Answer::Flows(nat.flow_rows(now)),
        })
    }
}

/// What [`Command::Start`] says, and the commands behind it that have arrived with it.
struct FirstCommand {
    layout: Layout,
    config: Config,
    others: Vec<Command>,
}

/// Waits for the first command.
fn first_command(channel: &mut Channel) -> Result<FirstCommand, ProcessError> {
    loop {
        let wanted = rustix::event::PollFlags::IN;
        let mut waiting = [rustix::event::PollFd::new(&*channel, wanted)];
        rustix::event::poll(&mut waiting, None).map_err(io::Error::from)?;
        let Some(commands) = channel.receive::<Command>()? else {
            return Err(
                io::Error::other("the daemon closed the channel before the start command").into()
            );
        };
        let mut commands = commands.into_iter();
        match commands.next() {
            Some(Command::Start { layout, config }) => {
                return Ok(FirstCommand { layout, config, others: commands.collect() });
            }
            Some(_) => {
                return Err(io::Error::other("the first command is not a start command").into());
            }
            None => {}
        }
    }
}

/// An unpredictable number.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // On failure ids repeat, and the random port still protects queries.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}

/// Registers `source` for edge-triggered events.
fn register(
    registry: &Registry,
    source: &impl AsFd,
    token: Token,
    interest: Interest,
) -> io::Result<()> {
    registry.register(&mut SourceFd(&source.as_fd().as_raw_fd()), token, interest)
}
