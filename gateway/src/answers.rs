//! Questions of the daemon that are not answered completely.

use std::collections::VecDeque;
use std::io;

use crate::control::{Channel, Report};
use crate::question::{Answer, Question};

/// Pending questions. Only one answer is kept at a time.
#[derive(Default)]
pub(crate) struct Questions {
    waiting: VecDeque<(u64, Question)>,
    current: Option<(u64, Answer)>,
}

impl Questions {
    pub(crate) fn ask(&mut self, id: u64, question: Question) {
        self.waiting.push_back((id, question));
    }

    /// Sends the next part once the channel has sent all before it. Returns whether there is more
    /// to send, and room for it.
    pub(crate) fn send(
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
            let (part, last) = answer.take_part();
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
    use crate::question::{ROWS_PER_PART, Row};
    use crate::report::{LeaseRow, LeaseState};

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
        let sizes = [65_000, 0, ROWS_PER_PART as u32];
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
