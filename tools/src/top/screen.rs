//! The table on a terminal, with keys.
//!
//! Threads read keys, signals and the daemon's numbers. One queue brings them to the thread that
//! draws, which alone uses the terminal and gives it back.

use std::io::{self, Write};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode, size,
};
use crossterm::{cursor, execute, queue};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use trama_api::top::Numbers;
use trama_client::{Daemon, Failed};

use super::options::{Options, Sort};
use super::rates::Rates;
use super::table::Table;

/// Lines besides the rows: the heading, the table's last line, the one about keys.
const OTHER_LINES: usize = 3;
/// What a shell adds to the number of a signal.
const BY_SIGNAL: i32 = 128;

/// What the drawing thread waits for.
enum Happening {
    Terminal(io::Result<Event>),
    Numbers(Result<Numbers, Failed>),
    Signal(i32),
}

/// The terminal while it belongs to the table.
struct Screen;

impl Screen {
    fn take() -> io::Result<Screen> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // The message would go with the table.
            give_back();
            before(panic);
        }));
        enable_raw_mode()?;
        let screen = Screen;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back as it was. One that is gone needs nothing.
fn give_back() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}

/// What is shown.
struct View {
    rates: Rates,
    sort: Sort,
    is_paused: bool,
    /// Rows above the first one that is shown.
    above: usize,
    /// Rows that had room when it was drawn last.
    room: usize,
    /// What is wrong with the daemon, or was.
    news: Option<String>,
}

/// Shows the table until a key or a signal ends it; returns the exit status.
pub(super) fn run(daemon: &Daemon, options: Options, first: Rates) -> io::Result<u8> {
    let (queue, happenings) = channel();
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let _screen = Screen::take()?;
    let sender = queue.clone();
    thread::spawn(move || {
        signals.forever().try_for_each(|signal| sender.send(Happening::Signal(signal)))
    });
    let sender = queue.clone();
    thread::spawn(move || while sender.send(Happening::Terminal(event::read())).is_ok() {});
    let sort = options.sort;
    let daemon = daemon.clone();
    thread::spawn(move || ask(&daemon, &options, &queue));
    let mut view = View { rates: first, sort, is_paused: false, above: 0, room: 0, news: None };
    view.draw()?;
    for happening in happenings {
        match happening {
            Happening::Signal(signal) => return Ok((BY_SIGNAL + signal) as u8),
            Happening::Terminal(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                if is_end(key) {
                    break;
                }
                view.press(key.code);
            }
            Happening::Terminal(event) => drop(event?),
            Happening::Numbers(_) if view.is_paused => continue,
            Happening::Numbers(Err(failed)) => view.news = Some(failed.to_string()),
            Happening::Numbers(Ok(numbers)) => view.follow(numbers),
        }
        view.draw()?;
    }
    Ok(0)
}

/// Asks for the numbers, again and again.
fn ask(daemon: &Daemon, options: &Options, queue: &Sender<Happening>) {
    loop {
        thread::sleep(options.interval);
        let answer = daemon.numbers(options.network.as_deref());
        if queue.send(Happening::Numbers(answer)).is_err() {
            return;
        }
    }
}

fn is_end(key: KeyEvent) -> bool {
    let is_control_c =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    is_control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}

impl View {
    fn press(&mut self, key: KeyCode) {
        let last = self.rates.ports().len().saturating_sub(self.room);
        self.above = match key {
            KeyCode::Up => self.above.saturating_sub(1),
            KeyCode::Down => self.above + 1,
            KeyCode::PageUp => self.above.saturating_sub(self.room),
            KeyCode::PageDown => self.above + self.room,
            KeyCode::Home => 0,
            KeyCode::End => last,
            _ => self.above,
        };
        self.above = self.above.min(last);
        match key {
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('p') => self.is_paused = !self.is_paused,
            _ => {}
        }
    }

    fn follow(&mut self, numbers: Numbers) {
        // A place that is not asked for is of no use.
        let rates = Rates::from(Numbers::default());
        self.rates = std::mem::replace(&mut self.rates, rates).then(numbers);
        self.news = self.rates.news();
    }

    /// Draws everything, in one write.
    fn draw(&mut self) -> io::Result<()> {
        let (columns, lines) = size()?;
        let (columns, lines) = (usize::from(columns), usize::from(lines));
        let table = Table::of(&self.rates, self.sort);
        self.room = lines.saturating_sub(OTHER_LINES);
        self.above = self.above.min(table.rows.len().saturating_sub(self.room));
        let mut text = Vec::new();
        queue!(text, cursor::MoveTo(0, 0), SetAttribute(Attribute::Bold))?;
        let cut = |line: &str| line.chars().take(columns).collect::<String>();
        let end = Clear(ClearType::UntilNewLine);
        queue!(text, Print(cut(&table.heading)), SetAttribute(Attribute::Reset), end)?;
        for row in table.rows.iter().skip(self.above).take(self.room) {
            queue!(text, Print("\r\n"), Print(cut(row)), end)?;
        }
        queue!(text, Print("\r\n"), Print(cut(&table.last)), end)?;
        queue!(text, Print("\r\n"), Print(cut(&self.keys())), Clear(ClearType::FromCursorDown))?;
        let mut out = io::stdout().lock();
        out.write_all(&text)?;
        out.flush()
    }

    /// The line about keys, or about what is wrong.
    fn keys(&self) -> String {
        if let Some(news) = &self.news {
            return news.lines().next().unwrap_or_default().to_owned();
        }
        let pause = if self.is_paused { "p go on (paused)" } else { "p pause" };
        format!("q quit  s sort (by {})  {pause}  arrows scroll", self.sort.word())
    }
}
