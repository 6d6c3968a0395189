//! DNS messages on a stream, each after its length (RFC 1035, 4.2.2).

/// A message with its length.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&message[..length.into()]);
    bytes
}

/// Takes the first message from `input`, if it is complete.
pub fn take_message(input: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (length, rest) = input.split_first_chunk::<2>()?;
    let message = rest.get(..usize::from(u16::from_be_bytes(*length)))?.to_vec();
    input.drain(..2 + message.len());
    Some(message)
}

/// Bytes that `input` lacks for a message, or for its length.
pub fn missing(input: &[u8]) -> usize {
    let end = match input.split_first_chunk::<2>() {
        Some((length, _)) => 2 + usize::from(u16::from_be_bytes(*length)),
        None => 2,
    };
    end.saturating_sub(input.len())
}
