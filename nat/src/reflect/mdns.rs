//! Multicast DNS messages (RFC 6762): questions of guests, and complete responses, pass.

/// Header of a message (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// Longest message (RFC 6762, 17).
const LONGEST: usize = 9000;
/// Most questions in a message.
const MAX_QUESTIONS: u16 = 64;
/// Flags: response, and the opcode, which is 0 in a standard query.
const RESPONSE: u16 = 1 << 15;
const OPCODE: u16 = 0xf << 11;
/// The bit for a unicast response in the class of a question (RFC 6762, 5.4).
const UNICAST: u8 = 0x80;

/// A message of a guest to the group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FromGuest {
    /// A message that holds the questions alone.
    Questions(Vec<u8>),
    /// An announcement or probe: both contain the guest's records.
    Announcement,
    Malformed,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Returns the offset behind a name (RFC 1035, 4.1.4).
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + length,
            // A pointer ends the name.
            0xc0.. => {
                let to = usize::from(word(bytes, at)? & 0x3fff);
                return (HEADER..at).contains(&to).then_some(at + 2);
            }
            _ => return None,
        }
    }
}

/// Returns the offset behind the record at `at`.
fn skip_record(bytes: &[u8], at: usize) -> Option<usize> {
    let fixed = skip_name(bytes, at)?;
    let end = fixed + 10 + usize::from(word(bytes, fixed + 8)?);
    (end <= bytes.len()).then_some(end)
}

/// Classifies a guest's message. Only its questions pass: known answers and records would tell the
/// host's links about guests that cannot be reached there.
pub(super) fn classify_query(bytes: &[u8]) -> FromGuest {
    let counts = [4, 6, 8, 10].map(|at| word(bytes, at));
    let (Some(flags), [Some(questions), Some(_), Some(claims), Some(_)]) = (word(bytes, 2), counts)
    else {
        return FromGuest::Malformed;
    };
    if flags & RESPONSE != 0 || claims != 0 {
        return FromGuest::Announcement;
    }
    if flags & OPCODE != 0 || !(1..=MAX_QUESTIONS).contains(&questions) {
        return FromGuest::Malformed;
    }
    match copy_questions(bytes, questions) {
        Some(message) if message.len() <= LONGEST => FromGuest::Questions(message),
        _ => FromGuest::Malformed,
    }
}

fn copy_questions(bytes: &[u8], count: u16) -> Option<Vec<u8>> {
    let mut message = bytes.to_vec();
    let mut at = HEADER;
    for _ in 0..count {
        at = skip_name(bytes, at)? + 4;
        // The response goes to the group, where the gateway receives it.
        *message.get_mut(at - 2)? &= !UNICAST;
        message.get(at - 1)?;
    }
    message.truncate(at);
    message[2..4].fill(0);
    message[6..HEADER].fill(0);
    Some(message)
}

/// A message from the host's links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FromLink {
    Answer,
    /// A query, which is not passed to guests.
    Question,
    Malformed,
}

/// Classifies a message from the host's links.
pub(super) fn classify_response(bytes: &[u8]) -> FromLink {
    match word(bytes, 2) {
        Some(flags) if flags & (RESPONSE | OPCODE) == RESPONSE => match is_whole(bytes) {
            Some(true) => FromLink::Answer,
            _ => FromLink::Malformed,
        },
        Some(flags) if flags & RESPONSE == 0 => FromLink::Question,
        _ => FromLink::Malformed,
    }
}

/// Whether all records are complete, and there are answers.
fn is_whole(bytes: &[u8]) -> Option<bool> {
    let mut at = HEADER;
    for _ in 0..word(bytes, 4)? {
        at = skip_name(bytes, at)? + 4;
    }
    let answers = word(bytes, 6)?;
    let records = u32::from(answers) + u32::from(word(bytes, 8)?) + u32::from(word(bytes, 10)?);
    for _ in 0..records {
        at = skip_record(bytes, at)?;
    }
    Some(answers > 0 && at <= bytes.len() && bytes.len() <= LONGEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &[u8] = b"\x05_http\x04_tcp\x05local\0";

    fn message(flags: u16, counts: [u16; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 7];
        bytes.extend(flags.to_be_bytes());
        counts.iter().for_each(|count| bytes.extend(count.to_be_bytes()));
        bytes.extend(body);
        bytes
    }

    fn question(class: u16) -> Vec<u8> {
        [NAME, &[0, 12], &class.to_be_bytes()].concat()
    }

    /// A record of one byte that refers to the first name.
    const RECORD: [u8; 13] = [0xc0, 12, 0, 16, 0x80, 1, 0, 0, 0, 120, 0, 1, 0];

    #[test]
    fn only_the_questions_of_a_guest_pass() {
        // The second name is a pointer to the first.
        let questions = [&question(0x8001)[..], &[0xc0, 12, 0, 16, 0, 1]].concat();
        let asked = message(0x0200, [2, 1, 0, 0], &[&questions[..], &RECORD].concat());
        let wanted = [&question(1)[..], &[0xc0, 12, 0, 16, 0, 1]].concat();
        assert_eq!(classify_query(&asked), FromGuest::Questions(message(0, [2, 0, 0, 0], &wanted)));
    }

    #[test]
    fn announcements_and_malformed_messages_do_not_pass() {
        let one = question(1);
        let record = [&one[..], &RECORD].concat();
        assert_eq!(
            classify_query(&message(0x8400, [0, 1, 0, 0], &record)),
            FromGuest::Announcement
        );
        assert_eq!(
            classify_query(&message(0, [1, 0, 1, 0], &record)),
            FromGuest::Announcement,
            "a probe"
        );
        let malformed = [
            message(0, [0, 0, 0, 0], &[]),
            message(0, [2, 0, 0, 0], &one),
            message(0, [65, 0, 0, 0], &one.repeat(65)),
            message(0x2800, [1, 0, 0, 0], &one),
            message(0, [1, 0, 0, 0], &[0xc0, 12, 0, 12, 0, 1]),
            message(0, [1, 0, 0, 0], &[0x40, 12, 0, 12, 0, 1]),
        ];
        for bytes in malformed {
            assert_eq!(classify_query(&bytes), FromGuest::Malformed, "{bytes:?}");
        }
        let whole = message(0, [1, 0, 0, 0], &one);
        for cut in 0..whole.len() {
            assert_eq!(classify_query(&whole[..cut]), FromGuest::Malformed, "{cut} bytes");
        }
    }

    #[test]
    fn answers_are_whole() {
        let body = [NAME, &RECORD[2..], &RECORD].concat();
        let answer = message(0x8400, [0, 1, 0, 1], &body);
        assert_eq!(classify_response(&answer), FromLink::Answer);
        for cut in 0..answer.len() {
            assert_ne!(classify_response(&answer[..cut]), FromLink::Answer, "{cut} bytes");
        }
        assert_eq!(
            classify_response(&message(0x8400, [0, 0, 0, 2], &body)),
            FromLink::Malformed,
            "none in it"
        );
        assert_eq!(classify_response(&message(0, [1, 0, 0, 0], &question(1))), FromLink::Question);
        assert_eq!(classify_response(&message(0xa800, [0, 1, 0, 1], &body)), FromLink::Malformed);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            classify_response(&bytes);
            if let FromGuest::Questions(message) = classify_query(&bytes) {
                prop_assert!(message.len() <= bytes.len());
                prop_assert_eq!(classify_query(&message), FromGuest::Questions(message));
            }
        }
    }
}
