//! Ports driven together by one thread with one clock.

use std::path::Path;
use std::time::{Duration, Instant};

use trama_virtqueue::DriverError;

use super::clock::{Clock, nanos};
use super::frame::{Reader, Stamp, Station, Template};
use super::load::FLOOD;
use super::load::{Direction, Load, Outcome};
use super::port::{Endpoint, Options, Port};
use super::schedule::Schedule;
use super::tally::Tally;
use super::waiter::Waiter;
use super::{Error, Result};

/// Frames that a port sends before the next port's turn. Between two bursts the generator waits for
/// indices that the device's core has written: at 64, the null device passed 22 to 28 million
/// frames a second, and 30 at 256.
const BURST: usize = 256;
/// Frames that a port receives before the next port's turn.
const RECEIVED: usize = 256;
/// Delay after which a frame counts as late, in nanoseconds.
const LATE: u64 = 10_000;
/// How long frames due at the end may wait for room in a ring that is being emptied.
const GRACE: u64 = 100_000;
/// A turn at least this long means that the system descheduled this thread. Frames due meanwhile
/// may be sent later by as much, since the switch is not the cause.
const DESCHEDULED: u64 = 1_000_000;
/// A turn at least this long is a pause of the machine: undisturbed it takes some ten microseconds.
const PAUSE: u64 = 100_000;
/// After the last frame was sent, the path counts as empty when nothing arrives for this time
/// (longer in tests, whose threads may wait long for a core), ...
const QUIET: u64 = if cfg!(test) { 5_000_000_000 } else { 250_000_000 };
/// ... or for this time if all expected frames have arrived, ...
const QUIET_AFTER_ALL: u64 = 2_000_000;
/// ... and at the latest after this time (RFC 2544, section 23).
const DRAIN: u64 = if cfg!(test) { 20_000_000_000 } else { 2_000_000_000 };
/// Time limit for sending a given number of frames.
const COUNTED: u64 = 10_000_000_000;
/// Time limit until a switch forwards frames; some poll a port only a while after they report it
/// ready.
const LEARNING: Duration = Duration::from_secs(20);

/// Ports on one switch.
pub struct Group {
    ports: Vec<Port>,
    waiter: Option<Waiter>,
    options: Options,
    /// Tells the frames of one run from those of another.
    run: u16,
}

impl Group {
    /// Connects a port to each of `sockets`.
    ///
    /// # Errors
    /// A backend does not connect within 20 seconds, or lacks a required feature.
    pub fn connect<P: AsRef<Path>>(sockets: &[P], options: Options) -> Result<Group> {
        // All sockets before the first connection: a backend may use them in any order.
        let endpoints = sockets
            .iter()
            .map(|path| Endpoint::bind(path.as_ref(), options.backend_role))
            .collect::<Result<Vec<_>>>()?;
        let ports = endpoints
            .iter()
            .map(|endpoint| endpoint.start(&options))
            .collect::<Result<Vec<_>>>()?;
        let waiter = options.sleeping.then(|| Waiter::new(&ports)).transpose()?;
        Ok(Group { ports, waiter, options, run: std::process::id() as u16 })
    }

    /// Lets the switch learn the stations of `load`, and waits until it forwards on every route of
    /// the load.
    ///
    /// # Errors
    /// A route passes no frame within 20 seconds.
    pub fn learn(&mut self, load: &Load) -> Result<()> {
        let stations = load.sources.max(load.destinations);
        let announce =
            Load { direction: Direction::Flood, rate: None, sources: stations, ..load.clone() };
        let deadline = Instant::now() + LEARNING;
        loop {
            self.send_counted(&announce, u64::from(stations))?;
            let tally = self.send_counted(load, u64::from(stations))?;
            match self.first_silent(load, &tally)? {
                None => break,
                Some((from, to)) if Instant::now() > deadline => {
                    return Err(Error::NotForwarded(format!(
                        "no frame arrived from port {from} at port {to}"
                    )));
                }
                Some(_) => {}
            }
        }
        // Sends once more: the switch now forwards what it flooded or looked up slowly while
        // learning.
        self.send_counted(load, u64::from(stations)).map(|_| ())
    }

    /// Runs `load` to its end.
    ///
    /// # Errors
    /// The load does not fit the ports, or the device violates the ring protocol.
    pub fn run(&mut self, load: &Load) -> Result<Outcome> {
        let routes = load.routes(self.ports.len())?;
        let end = nanos(load.duration);
        let count = routes.len() as f64;
        let mut senders = routes
            .into_iter()
            .enumerate()
            .map(|(i, (port, targets))| {
                let schedule = match load.rate {
                    // Offsets spread the senders over the period.
                    Some(rate) => Schedule::paced(rate / count, i as f64 / count, end),
                    None => Schedule::Unpaced { end },
                };
                Sender::new(load, port, targets, schedule)
            })
            .collect::<Result<Vec<_>>>()?;
        let (tally, paused) = self.transfer(load, &mut senders, end.saturating_add(GRACE))?;
        Ok(outcome(load, &senders, tally, self.ports.len(), end, paused))
    }

    /// Sends `count` frames on each route of `load`, unpaced.
    fn send_counted(&mut self, load: &Load, count: u64) -> Result<Tally> {
        let mut senders = load
            .routes(self.ports.len())?
            .into_iter()
            .map(|(port, targets)| {
                let left = count * targets.len() as u64;
                Sender::new(load, port, targets, Schedule::Counted { left })
            })
            .collect::<Result<Vec<_>>>()?;
        let unpaced = Load { rate: None, ..load.clone() };
        self.transfer(&unpaced, &mut senders, COUNTED).map(|(tally, _)| tally)
    }

    /// Returns the first route of `load` on which nothing arrived.
    fn first_silent(&self, load: &Load, tally: &Tally) -> Result<Option<(usize, usize)>> {
        let ports = self.ports.len();
        let ways = load.routes(ports)?.into_iter().flat_map(|(from, targets)| {
            targets
                .into_iter()
                .flat_map(move |to| receivers(from, to, ports).map(move |to| (from, to)))
        });
        Ok({ ways }.find(|(from, to)| !tally.has_received(*to, *from)))
    }

    /// Sends until the senders are done or time is up, and receives until the path is empty.
    /// Returns also the nanoseconds of the machine's pauses meanwhile.
    fn transfer(
        &mut self,
        load: &Load,
        senders: &mut [Sender],
        limit: u64,
    ) -> Result<(Tally, u64)> {
        self.prepare(load, senders)?;
        self.run = self.run.wrapping_add(1);
        let reader = Reader::new(load);
        let mut tally = Tally::new(self.run, self.ports.len(), load.rate.is_some());
        let clock = Clock::start();
        let mut deadline = Deadline::new(limit);
        loop {
            let now = deadline.turn(clock.now());
            let mut no_room = false;
            for sender in &mut *senders {
                let port = sender.port;
                let sent = sender.send(&mut self.ports[port], self.run, now);
                no_room |= sent.map_err(|error| Error::Ring { port, error })?;
            }
            let due = senders.iter().filter_map(|sender| sender.schedule.next(now)).min();
            let behind = due.is_some_and(|time| time <= now);
            if due.is_none() || deadline.has_passed(behind && !no_room) {
                break;
            }
            match &self.waiter {
                None => self.receive_all(&mut tally, reader, clock)?,
                Some(_) => {
                    let wait = due.map_or(0, |time| time.saturating_sub(now));
                    self.receive_called(&mut tally, reader, clock, wait)?;
                }
            }
        }
        let sent: u64 = senders.iter().map(|sender| sender.sent).sum();
        self.drain(&mut tally, sent * copies(load, self.ports.len()), reader, clock)?;
        // A sleeping group's long turns are its own sleep.
        let paused = if self.waiter.is_some() { 0 } else { deadline.paused };
        Ok((tally, paused))
    }

    /// Receives frames still in flight.
    fn drain(
        &mut self,
        tally: &mut Tally,
        expected: u64,
        reader: Reader,
        clock: Clock,
    ) -> Result<()> {
        let begin = clock.now();
        loop {
            let now = clock.now();
            let quiet = if tally.received < expected { QUIET } else { QUIET_AFTER_ALL };
            if now > tally.last.max(begin) + quiet || now > begin + DRAIN {
                return Ok(());
            }
            match &self.waiter {
                None => self.receive_all(tally, reader, clock)?,
                Some(_) => self.receive_called(tally, reader, clock, quiet)?,
            }
        }
    }

    /// Fills the senders' buffers, once all buffers of earlier runs are back.
    fn prepare(&mut self, load: &Load, senders: &[Sender]) -> Result<()> {
        if load.gso.is_some() && !self.options.offloads {
            let reason = "large segments need ports that were connected with offloads";
            return Err(Error::Load(reason.into()));
        }
        let deadline = Instant::now() + LEARNING;
        for sender in senders {
            let index = sender.port;
            let ring = |error| Error::Ring { port: index, error };
            let port = &mut self.ports[index];
            if !port.settle(self.options.queue_size, deadline).map_err(ring)? {
                let reason = format!("the buffers that port {index} sent did not come back");
                return Err(Error::NotForwarded(reason));
            }
            port.tx.prepare(&sender.template.header, &sender.template.bytes).map_err(ring)?;
        }
        Ok(())
    }

    #[inline]
    fn receive_all(&mut self, tally: &mut Tally, reader: Reader, clock: Clock) -> Result<()> {
        for (index, port) in self.ports.iter_mut().enumerate() {
            receive(port, index, tally, reader, clock)
                .map_err(|error| Error::Ring { port: index, error })?;
        }
        Ok(())
    }

    /// Waits until a port is called or `nanos` have nearly passed, and receives on the called
    /// ports.
    fn receive_called(
        &mut self,
        tally: &mut Tally,
        reader: Reader,
        clock: Clock,
        nanos: u64,
    ) -> Result<()> {
        let Some(waiter) = &mut self.waiter else { return Ok(()) };
        for index in waiter.wait(nanos)? {
            let port = &mut self.ports[index];
            port.rx.disarm();
            loop {
                let ring = |error| Error::Ring { port: index, error };
                let count = receive(port, index, tally, reader, clock).map_err(ring)?;
                if count == 0 && !port.rx.arm() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Polls a port's receive ring once; returns the number of frames.
#[inline]
fn receive(
    port: &mut Port,
    index: usize,
    tally: &mut Tally,
    reader: Reader,
    clock: Clock,
) -> std::result::Result<usize, DriverError> {
    // Read after the poll that found the frames, so that none gets a time before its arrival.
    let mut now = None;
    let count = port.rx.recv_each(RECEIVED, |frame| {
        let now = *now.get_or_insert_with(|| clock.now());
        if let Some(stamp) = reader.read(frame) {
            tally.take(index, stamp, now);
        }
    })?;
    if count > 0 {
        port.refill();
    }
    Ok(count)
}

/// Returns the ports that should receive a frame from `from` to `target`.
fn receivers(from: usize, target: u16, ports: usize) -> impl Iterator<Item = usize> {
    (0..ports).filter(move |to| match target {
        FLOOD => *to != from,
        target => *to == usize::from(target),
    })
}

/// Returns how many copies of a frame of `load` should arrive.
fn copies(load: &Load, ports: usize) -> u64 {
    if load.direction == Direction::Flood { ports as u64 - 1 } else { 1 }
}

/// The time until which due frames may still be sent.
struct Deadline {
    limit: u64,
    /// When this turn began, and how long the previous one took.
    now: u64,
    took: u64,
    /// How long the thread was descheduled since the last time that it had sent everything due or
    /// possible.
    descheduled: u64,
    /// The total of all pauses.
    paused: u64,
}

impl Deadline {
    fn new(limit: u64) -> Deadline {
        Deadline { limit, now: 0, took: 0, descheduled: 0, paused: 0 }
    }

    /// Begins a turn.
    #[inline]
    fn turn(&mut self, now: u64) -> u64 {
        self.took = now - self.now;
        self.now = now;
        if self.took >= PAUSE {
            self.paused += self.took;
        }
        now
    }

    /// Returns whether time is up in this turn; the argument tells whether the turn left due frames
    /// unsent for lack of time.
    #[inline]
    fn has_passed(&mut self, behind: bool) -> bool {
        if !behind {
            self.descheduled = 0;
        } else if self.took >= DESCHEDULED {
            self.descheduled += self.took;
        }
        self.now >= self.limit + self.descheduled
    }
}

fn outcome(
    load: &Load,
    senders: &[Sender],
    tally: Tally,
    ports: usize,
    end: u64,
    paused: u64,
) -> Outcome {
    let (latency, mut window_p99) = tally.latency.map(|found| (found.all, found.windows)).unzip();
    window_p99.iter_mut().for_each(|windows: &mut Vec<u64>| windows.sort_unstable());
    let sum = |of: fn(&Sender) -> u64| senders.iter().map(of).sum::<u64>();
    let sent = sum(|sender| sender.sent);
    let offered = sent + sum(|sender| sender.schedule.left());
    let expected = offered * copies(load, ports);
    Outcome {
        offered,
        sent,
        expected,
        received: tally.received,
        lost: expected.saturating_sub(tally.received),
        duplicates: tally.duplicates,
        reordered: tally.reordered,
        strays: tally.strays,
        late: sum(|sender| sender.late),
        paused: paused as f64 / 1e9,
        seconds: tally.last.max(end) as f64 / 1e9,
        latency,
        window_p99: window_p99.unwrap_or_default(),
    }
}

/// The sending side of a port.
struct Sender {
    port: usize,
    template: Template,
    schedule: Schedule,
    targets: Vec<u16>,
    /// The next sequence number for each target.
    sequences: Vec<u32>,
    /// The target whose turn it is.
    target: usize,
    source: u32,
    destination: u32,
    sources: u32,
    destinations: u32,
    moving: bool,
    sent: u64,
    late: u64,
}

impl Sender {
    fn new(load: &Load, port: usize, targets: Vec<u16>, schedule: Schedule) -> Result<Sender> {
        Ok(Sender {
            port,
            template: Template::new(load, port)?,
            schedule,
            sequences: vec![0; targets.len()],
            targets,
            target: 0,
            source: 0,
            destination: 0,
            sources: load.sources,
            destinations: load.destinations,
            moving: load.moving,
            sent: 0,
            late: 0,
        })
    }

    /// Sends what is due, at most one burst; returns true if the ring had no room for all of it.
    #[inline]
    fn send(
        &mut self,
        port: &mut Port,
        run: u16,
        now: u64,
    ) -> std::result::Result<bool, DriverError> {
        if port.tx.free() < BURST {
            port.tx.reclaim()?;
        }
        let room = port.tx.free().min(BURST);
        if self.schedule.is_unpaced() {
            port.tx.expect(room);
        }
        let mut count = 0;
        while count < room
            && let Some(time) = self.schedule.take(now)
        {
            let (to, from, stamp) = self.next(run, time);
            port.tx.send_again(|frame| self.template.fill(frame, to, from, stamp))?;
            self.late += u64::from(now - time > LATE);
            count += 1;
        }
        if count > 0 {
            self.sent += count as u64;
            port.publish();
        }
        Ok(count == room && room < BURST)
    }

    /// Returns addresses and stamp of the next frame. Targets take turns; stations advance with
    /// each cycle of the targets.
    #[inline(always)]
    fn next(&mut self, run: u16, time: u64) -> (Station, Station, Stamp) {
        let target = self.targets[self.target];
        let sequence = self.sequences[self.target];
        self.sequences[self.target] = sequence.wrapping_add(1);
        let to = match target {
            FLOOD => Station::unknown(),
            owner => Station::of(owner, self.destination),
        };
        let from = match self.moving {
            true => Station::moving(self.source),
            false => Station::of(self.port as u16, self.source),
        };
        self.target += 1;
        if self.target == self.targets.len() {
            self.target = 0;
            self.source = if self.source + 1 == self.sources { 0 } else { self.source + 1 };
            self.destination =
                if self.destination + 1 == self.destinations { 0 } else { self.destination + 1 };
        }
        (to, from, Stamp { run, origin: self.port as u16, target, sequence, time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_pauses_are_summed_and_extend_the_deadline() {
        let mut deadline = Deadline::new(10 * DESCHEDULED);
        for now in [1_000, 1_000 + PAUSE, 9 * DESCHEDULED, 9 * DESCHEDULED + 10] {
            deadline.turn(now);
            assert!(!deadline.has_passed(true));
        }
        assert_eq!(deadline.paused, 9 * DESCHEDULED - 1_000);
        // The long turn excuses late frames; nothing is excused once it has been made up for.
        deadline.turn(11 * DESCHEDULED);
        assert!(!deadline.has_passed(true));
        assert!(deadline.has_passed(false));
    }
}
