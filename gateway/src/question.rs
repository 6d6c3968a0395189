//! The tables that a daemon can query from its gateway: too large, or changing too fast, for
//! regular reports.
//!
//! To add one: its row in [`report`](crate::report), a line in `questions!`, and an arm in
//! `answer_questions` of `process.rs`. The daemon's `Supervisor::ask` then accepts it.

use serde::{Deserialize, Serialize};

use crate::report::{FlowRow, ForwardStatus, LeaseRow};

/// Rows in one part. Each has less than a kilobyte; a line may have a megabyte.
pub(crate) const ROWS_PER_PART: usize = 256;

/// A row of an answer.
pub trait Row: Sized {
    /// The question that it belongs to.
    const QUESTION: Question;

    /// The rows of an answer; empty if it answers another question.
    fn of(answer: Answer) -> Vec<Self>;
}

macro_rules! questions {
    ($($(#[$doc:meta])* $name:ident($row:ident),)+) => {
        /// A table to query.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Question {
            $($(#[$doc])* $name,)+
        }

        /// An answer, or a part of one.
        #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Answer {
            $($(#[$doc])* $name(Vec<$row>),)+
        }

        impl Answer {
            /// Removes the next part. Returns whether it is the last.
            pub(crate) fn take_part(&mut self) -> (Answer, bool) {
                match self {
                    $(Answer::$name(rows) => {
                        let part = rows.drain(..rows.len().min(ROWS_PER_PART)).collect();
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
    /// The state of forwards.
    Forwards(ForwardStatus),
    /// Flows of the NAT.
    Flows(FlowRow),
}
