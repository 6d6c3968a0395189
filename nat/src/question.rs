//! What a daemon may ask its gateway: tables that are too large, or change too fast, to be reported
//! unasked.
//!
//! To add one: its row, a line in `questions!`, and an arm in `answer_questions` of
//! `process.rs`, which has the rows. `Supervisor::ask` of the daemon then takes it.

use serde::{Deserialize, Serialize};

use crate::report::{FlowRow, ForwardStatus, LeaseRow};

/// Most rows in one part. Each has less than a kilobyte, a line may have a megabyte.
pub(crate) const PART: usize = 256;

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
            pub(crate) fn part(&mut self) -> (Answer, bool) {
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
