//! What a daemon may ask its gateway: tables that are too large, or change too fast, to be reported
//! unasked.
//!
//! To add one: its row, a line in `questions!`, and an arm in `answer_questions` of
//! `process.rs`, which has the rows. `Supervisor::ask` of the daemon then takes it.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::control::{Channel, FlowRow, ForwardStatus, Report};

/// Most rows in one part. Each has less than a kilobyte, a line may have a megabyte.
const PART: usize = 256;

/// A row of an answer.
pub trait Row: Sized {
    /// The question that it answers.
    const QUESTION: Question;

    /// The rows of an answer; none if it is one to another question.
    fn of(answer: Answer) -> Vec<Self>;
}

macro_rules! questions {
    ($($(#[$doc:meta])* $name:ident($row:ident),)+) => {
        /// What can be asked.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Question {
            $($(#[$doc])* $name,)+
        }

        /// An answer or a part of one.
        #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Answer {
            $($(#[$doc])* $name(Vec<$row>),)+
        }

        impl Answer {
            /// Takes the next part off. True: it is the last.
            fn part(&mut self) -> (Answer, bool) {
                match self {
                    $(Answer::$name(rows) => {
                        let part = rows.drain(..rows.len().min(PART)).collect();
                        (Answer::$name(part), rows.is_empty())
                    })+
                }
            }
        }

        $(impl Row for $row {
            const QUESTION: Question = Question::$name;

            fn of(answer: Answer) -> Vec<$row> {
                match answer {
                    Answer::$name(rows) => rows,
                    _ => Vec::new(),
                }
            }
        })+
    };
}

questions! {
    /// Addresses that DHCP clients have, had or are offered.
    Leases(LeaseRow),
    /// How forwards fare.
    Forwards(ForwardStatus),
    /// Flows of the router.
    Flows(FlowRow),
}

/// An address that a DHCP client has, had or is offered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseRow {
    /// The address.
    pub address: IpAddr,
    /// What it is in use for.
    pub state: LeaseState,
    /// The client's hardware address.
    pub mac: [u8; 6],
    /// The client's name.
    pub name: Option<String>,
    /// The mark of the switch port that it is charged to.
    pub port: u64,
    /// Seconds until the state ends; [`LeaseState::Idle`] does not.
    pub left: Option<u64>,
}

/// What an address is in use for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// Leased.
    Bound,
    /// Offered, or looked at for another user before it is.
    Offered,
    /// Free, and remembered for its last client.
    Idle,
    /// Used by someone who has no lease.
    Conflict,
}

/// Questions that are not yet answered whole. Only one answer is kept at a time.
#[derive(Default)]
pub(crate) struct Questions {
    waiting: VecDeque<(u64, Question)>,
    current: Option<(u64, Answer)>,
}

impl Questions {
    pub fn ask(&mut self, id: u64, question: Question) {
        self.waiting.push_back((id, question));
    }

    /// Sends the next part, if the channel has taken all before it. True: there is more, and the
    /// channel has room.
    pub fn send(
        &mut self,
        channel: &mut Channel,
        look_up: impl FnOnce(Question) -> Answer,
    ) -> io::Result<bool> {
        if channel.is_behind() {
            return Ok(false);
        }
        if self.current.is_none() {
            let Some((id, question)) = self.waiting.pop_front() else { return Ok(false) };
            self.current = Some((id, look_up(question)));
        }
        if let Some((id, answer)) = &mut self.current {
            let (part, last) = answer.part();
            channel.send(&Report::Answer { id: *id, part, last })?;
            if last {
                self.current = None;
            }
        }
        Ok(!channel.is_behind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: u32) -> Vec<LeaseRow> {
        let row = |number| LeaseRow {
            address: std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
            state: LeaseState::Bound,
            mac: [2, 0, 0, 0, 0, 1],
            name: Some("n".repeat(63)),
            port: 7,
            left: Some(3600),
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn a_long_answer_comes_in_parts_and_in_order() {
        let (daemon, gateway) = std::os::unix::net::UnixStream::pair().unwrap();
        let (mut daemon, mut gateway) =
            (Channel::new(daemon).unwrap(), Channel::new(gateway).unwrap());
        let mut questions = Questions::default();
        let sizes = [65_000, 0, PART as u32];
        for id in 0..3 {
            questions.ask(id, Question::Leases);
        }
        let mut left = sizes.iter();
        let (mut answers, mut done) = (vec![Vec::new(); 3], Vec::new());
        while done.len() < 3 {
            let look_up = |_| Answer::Leases(rows(*left.next().unwrap()));
            gateway.flush().unwrap();
            questions.send(&mut gateway, look_up).unwrap();
            for report in daemon.receive::<Report>().unwrap().unwrap() {
                let Report::Answer { id, part, last } = report else { panic!("{report:?}") };
                answers[id as usize].extend(LeaseRow::of(part));
                done.extend(last.then_some(id));
            }
        }
        assert_eq!(done, [0, 1, 2]);
        for (answer, size) in answers.iter().zip(sizes) {
            assert!(*answer == rows(size), "{size} rows");
        }
        assert!(!questions.send(&mut gateway, |_| panic!("nothing was asked")).unwrap());
    }
}
