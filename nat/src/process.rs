//! The gateway's process: an engine, its cable, its channel to the daemon, and one loop around
//! them.
//!
//! The daemon starts it with its end of the channel as standard input. It ends when the channel
//! does, on SIGTERM, and with the thread that started it, whatever way that goes. It has given up
//! every privilege before the first frame.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use trama_virtqueue::DriverError;

use crate::clock::Clock;
use crate::control::{Channel, Command, Report, receive_end};
use crate::dns::resolvers::Resolvers;
use crate::dns::sockets::Sockets;
use crate::drop_reason::{Counters, DropReason};
use crate::gateway::{Gateway, Output, PortId};
use crate::leases::Store;
use crate::link::Link;
use crate::question::{Answer, Question, Questions};

const CABLE: Token = Token(0);
const CONTROL: Token = Token(1);
const TERMINATE: Token = Token(2);
const RESOLVERS: Token = Token(3);
const WRITTEN: Token = Token(4);
/// Sockets to DNS servers have this token and those that follow.
const SERVERS: usize = 5;

/// Frames taken before answers are sent and everything else has its turn.
const BATCH: usize = 64;
/// Datagrams taken from one DNS server's socket before everything else has its turn.
const ANSWERS: usize = 16;
/// Frames that wait for room on the ring; beyond that they are dropped.
const BACKLOG: usize = 4096;
/// When a full ring is looked at again: the switch empties it in far less.
const RING_PAUSE: Duration = Duration::from_millis(1);
/// Shortest time between two reports of the counters.
const REPORT: Duration = Duration::from_secs(1);

/// Why a gateway process ends before its time.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// A system call failed, or the daemon sent something else than it should.
    #[error("gateway: {0}")]
    System(#[from] io::Error),
    /// The cable broke.
    #[error("gateway's cable: {0}")]
    Cable(#[from] DriverError),
}

/// Is a gateway until the daemon ends it; standard input is the channel.
///
/// # Errors
/// It cannot go on. The daemon starts another one.
pub fn run() -> Result<(), ProcessError> {
    // The channel's end says the same, but only to a process that still reads it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut process = Process::start(stream)?;
    drop_privileges()?;
    process.channel.send(&Report::Ready)?;
    let ended = process.serve();
    if let Err(error) = &ended {
        // Whoever reads it knows which gateway it was.
        let _ = process.channel.send(&Report::Warning(error.to_string()));
    }
    ended
}

/// Nothing here needs a privilege: host sockets are connected, not raw or on low ports.
fn drop_privileges() -> io::Result<()> {
    set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets)?;
    Ok(())
}

struct Process {
    poll: Poll,
    link: Link,
    gateway: Gateway,
    channel: Channel,
    /// Becomes readable on SIGTERM.
    _terminate: UnixStream,
    resolvers: Resolvers,
    sockets: Sockets,
    questions: Questions,
    store: Option<Store>,
    /// Wakes the loop when the store has written something.
    written: Arc<Waker>,
    clock: Clock,
    frame: Vec<u8>,
    out: Output,
    /// The counters and the number of leases that the daemon knows.
    reported: (Counters, usize),
    /// When the next report may go out.
    report_at: Duration,
}

impl Process {
    /// Takes the cable and the first settings, for which it waits.
    fn start(stream: UnixStream) -> Result<Process, ProcessError> {
        let end = receive_end(&stream)?;
        let mut channel = Channel::new(stream)?;
        let poll = Poll::new()?;
        watch(poll.registry(), &channel, CONTROL, Interest::READABLE | Interest::WRITABLE)?;
        let (terminate, signalled) = UnixStream::pair()?;
        terminate.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, signalled)?;
        watch(poll.registry(), &terminate, TERMINATE, Interest::READABLE)?;
        let (layout, config) = first_command(&mut channel)?;
        let link = Link::attach(layout, end)?;
        watch(poll.registry(), &link.event(), CABLE, Interest::READABLE)?;
        let resolvers = Resolvers::of_host()?;
        watch(poll.registry(), &resolvers, RESOLVERS, Interest::READABLE)?;
        let clock = Clock::start();
        let mut gateway = Gateway::new(config, Box::new(random));
        gateway.set_servers(resolvers.servers().to_vec());
        let written = Arc::new(Waker::new(poll.registry(), WRITTEN)?);
        let mut process = Process {
            poll,
            link,
            gateway,
            channel,
            _terminate: terminate,
            resolvers,
            sockets: Sockets::new(SERVERS),
            questions: Questions::default(),
            store: None,
            written,
            clock,
            frame: Vec::new(),
            out: Output::default(),
            reported: (Counters::default(), 0),
            report_at: Duration::ZERO,
        };
        process.open_store();
        Ok(process)
    }

    /// Opens the lease store, if the settings have one and it is not open.
    fn open_store(&mut self) {
        let config = self.gateway.config();
        let Some(folder) = config.dhcp.as_ref().filter(|_| config.ipv4.is_some()) else {
            self.store = None;
            return;
        };
        if self.store.is_some() {
            return;
        }
        match Store::open(&folder.folder, self.written.clone()) {
            Ok((store, records)) => {
                self.gateway.open_leases(self.now(), self.clock.epoch(), records);
                self.store = Some(store);
            }
            Err(error) => self.gateway.warn(format!(
                "no DHCP: {}: {error}; make the folder writable for the daemon's user, or set \
                 another as daemon.state, then reload",
                folder.folder.display()
            )),
        }
    }

    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn serve(&mut self) -> Result<(), ProcessError> {
        let mut events = Events::with_capacity(64);
        loop {
            let more = self.frames()?;
            self.gateway.poll(self.now(), &mut self.out);
            self.act()?;
            self.report()?;
            self.warn()?;
            let now = self.now();
            let look_up = |question| look_up(&self.gateway, now, question);
            let asked = self.questions.send(&mut self.channel, look_up)?;
            let limit = if more || asked { Some(Duration::ZERO) } else { self.deadline() };
            match self.poll.poll(&mut events, limit) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    CONTROL if !self.control()? => return Ok(()),
                    TERMINATE => return Ok(()),
                    RESOLVERS => self.follow_resolvers(),
                    // What is done is taken on the way.
                    WRITTEN => {}
                    token => self.answers(token),
                }
            }
        }
    }

    /// Until when the loop may sleep.
    fn deadline(&self) -> Option<Duration> {
        if !self.out.frames.is_empty() {
            return Some(RING_PAUSE);
        }
        let report = self.has_news().then_some(self.report_at);
        let next = report.into_iter().chain(self.gateway.deadline()).min();
        next.map(|at| at.saturating_sub(self.now()))
    }

    fn follow_resolvers(&mut self) {
        if self.resolvers.refresh() {
            self.gateway.set_servers(self.resolvers.servers().to_vec());
        }
    }

    /// Takes what a DNS server has sent.
    fn answers(&mut self, token: Token) {
        let Some(slot) = self.sockets.slot(token) else { return };
        let now = self.now();
        // Beyond that, the rest waits until the question is asked elsewhere: it is a flood.
        for _ in 0..ANSWERS {
            match self.sockets.receive(slot) {
                Ok(Some(bytes)) => self.gateway.server_answered(now, slot, bytes, &mut self.out),
                Ok(None) => return,
                Err(()) => return self.gateway.server_failed(now, slot, &mut self.out),
            }
            if self.carry_out() {
                return;
            }
        }
    }

    /// Has the sockets do what the engine wants. True: something was wanted.
    fn carry_out(&mut self) -> bool {
        let mut any = false;
        // A server that cannot be asked makes the engine ask the next one, a few times.
        while !self.out.upstream.is_empty() {
            any = true;
            for wanted in std::mem::take(&mut self.out.upstream) {
                if let Err(slot) = self.sockets.carry_out(self.poll.registry(), wanted) {
                    self.gateway.server_failed(self.now(), slot, &mut self.out);
                }
            }
        }
        any
    }

    /// Takes a batch of frames and answers them. True: more are waiting.
    fn frames(&mut self) -> Result<bool, ProcessError> {
        self.link.disarm();
        let now = self.now();
        let mut taken = 0;
        while taken < BATCH
            && let Some(mark) = self.link.receive(&mut self.frame)?
        {
            let port = PortId(mark.into());
            self.gateway.handle(now, port, &self.frame, &mut self.out);
            taken += 1;
        }
        self.link.refill();
        self.act()?;
        Ok(taken == BATCH || self.link.arm())
    }

    /// Does what the engine wants done.
    fn act(&mut self) -> Result<(), ProcessError> {
        self.carry_out();
        let (now, gateway) = (self.now(), &self.gateway);
        if let Some(store) = &mut self.store {
            store.carry_out(now, || gateway.lease_snapshot(), &mut self.out);
        }
        let (mut done, all) = (0, self.out.frames.len());
        for frame in &self.out.frames {
            match self.link.send(frame) {
                Ok(()) => {}
                // The rest waits for the next turn.
                Err(DriverError::Full) if all - done <= BACKLOG => break,
                Err(DriverError::Full) => self.gateway.count_drop(DropReason::RingFull),
                Err(DriverError::TooLarge(_)) => self.gateway.count_drop(DropReason::TooLong),
                Err(error) => return Err(error.into()),
            }
            done += 1;
        }
        self.out.frames.drain(..done);
        self.link.flush();
        Ok(())
    }

    /// Does what the daemon says. False: it is gone.
    fn control(&mut self) -> Result<bool, ProcessError> {
        self.channel.flush()?;
        let Some(commands) = self.channel.receive::<Command>()? else { return Ok(false) };
        for command in commands {
            match command {
                Command::Start { .. } => return Err(io::Error::other("started twice").into()),
                Command::Configure(config) => {
                    self.gateway.reconfigure(config);
                    self.open_store();
                }
                Command::Ask { id, question } => self.questions.ask(id, question),
            }
        }
        Ok(true)
    }

    /// Has the daemon log what it should.
    fn warn(&mut self) -> io::Result<()> {
        let store = self.store.as_mut().map(Store::take_warnings).unwrap_or_default();
        for warning in self.gateway.take_warnings().into_iter().chain(store) {
            self.channel.send(&Report::Warning(warning))?;
        }
        Ok(())
    }

    /// Tells the daemon the counters now and then, if they have changed.
    fn report(&mut self) -> Result<(), ProcessError> {
        if self.now() >= self.report_at && self.has_news() {
            self.channel.send(&Report::Status(self.gateway.status()))?;
            self.reported = (self.gateway.counters().clone(), self.gateway.leases_in_force());
            self.report_at = self.now() + REPORT;
        }
        Ok(())
    }

    /// Whether the daemon has yet to hear of something; asked at every turn.
    fn has_news(&self) -> bool {
        let (counters, leases) = &self.reported;
        self.gateway.counters() != counters || self.gateway.leases_in_force() != *leases
    }
}

/// The answer to a question.
fn look_up(gateway: &Gateway, now: Duration, question: Question) -> Answer {
    match question {
        Question::Leases => Answer::Leases(gateway.lease_rows(now)),
        // The router's, which has none yet.
        Question::Forwards => Answer::Forwards(Vec::new()),
        Question::Flows => Answer::Flows(Vec::new()),
    }
}

/// Waits for the first command.
fn first_command(
    channel: &mut Channel,
) -> Result<(crate::link::Layout, crate::Config), ProcessError> {
    loop {
        let wanted = rustix::event::PollFlags::IN;
        let mut waiting = [rustix::event::PollFd::new(&*channel, wanted)];
        rustix::event::poll(&mut waiting, None).map_err(io::Error::from)?;
        let Some(commands) = channel.receive::<Command>()? else {
            return Err(io::Error::other("the daemon left before it said what to be").into());
        };
        let mut commands = commands.into_iter();
        match commands.next() {
            Some(Command::Start { layout, config }) => {
                let mut latest = commands.filter_map(|command| match command {
                    Command::Configure(config) => Some(config),
                    Command::Start { .. } | Command::Ask { .. } => None,
                });
                return Ok((layout, latest.next_back().unwrap_or(config)));
            }
            Some(_) => return Err(io::Error::other("not started").into()),
            None => {}
        }
    }
}

/// A number that nobody can guess.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without it ids repeat, and the port of each question's socket is what protects it.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}

/// Reports each new readiness of `source`.
fn watch(
    registry: &Registry,
    source: &impl AsFd,
    token: Token,
    interest: Interest,
) -> io::Result<()> {
    registry.register(&mut SourceFd(&source.as_fd().as_raw_fd()), token, interest)
}
