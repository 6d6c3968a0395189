//! Conformance of the NAT's TCP with RFC 9293 (and RFC 5961 for forged segments), tested by a
//! guest with scripted segments over IPv4 and IPv6. `tests/src/script.rs` describes the scripts.

use std::io::Read;

use trama_tests::script::{Flow, Segment, Stage};

/// The guest opens a flow; its windows are scaled by four.
const OPEN: &str = "> syn 0 win=4000 mss=1000 scale=2
                    < syn 0 ack=1 scale=7
                    host accepts
                    > 1 ack=1 win=4000";

/// Plays each script on a newly opened flow.
#[track_caller]
fn play_open(scripts: &[&str]) {
    let stage = Stage::set_up();
    for script in scripts {
        stage.play(&format!("{OPEN}\n{script}"));
    }
    stage.end();
}

#[test]
fn connections_begin_in_order() {
    let stage = Stage::set_up();
    for script in [
        // Without the option there is no scaling; each repeated SYN is answered.
        "> syn 0 win=4000 mss=1000
         < syn 0 ack=1 scale=no
         > syn 0 win=4000 mss=1000
         < again syn 0 ack=1 scale=no
         host accepts
         > 1:hello ack=1
         < 1 ack=6
         host hears hello",
        // Data in the SYN may be retransmitted.
        "> syn 0:hello win=4000
         < syn 0 ack=1
         > 1:hello ack=1
         < 1 ack=6
         host accepts
         host hears hello",
        // An unacceptable acknowledgement is reset (3.10.7.4, SYN-RECEIVED).
        "> syn 0 win=4000
         < syn 0 ack=1
         > 1:evil ack=77
         < rst 77
         > 1:good ack=1
         < 1 ack=5
         host accepts
         host hears good",
        // The host does not listen.
        "host refuses
         > syn 0 win=4000
         < rst 0 ack=1",
        // No such flow (3.10.7.1).
        "> 5 ack=9
         < rst 9
         > 5:abc
         < rst 0 ack=8
         > fin 5
         < rst 0 ack=6
         > rst 5
         > 5 ack=10
         < rst 10",
    ] {
        stage.play(script);
    }
    stage.end();
}

// spec-test: rfc9293 MUST-10 MUST-12
#[test]
fn machines_are_called_in_order() {
    let stage = Stage::set_up();
    for script in [
        "host calls
         < syn 0 scale=7
         > syn 0 ack=1 win=4000 mss=1000 scale=2
         < 1 ack=1
         host says hello
         < 1:hello ack=1
         > 1:back ack=6
         < 6 ack=5
         host hears back",
        // Simultaneous open (3.5, figure 8).
        "host calls
         < syn 0
         > syn 0 win=4000 mss=1000 scale=2
         < again syn 0 ack=1
         > 1:hello ack=1
         < 1 ack=6
         host hears hello",
        "host calls
         < syn 0
         > rst 0 ack=1
         host hears reset",
        // A reset with an unacceptable acknowledgement is ignored, and an old connection of the
        // guest is reset (3.5, figure 9).
        "host calls
         < syn 0
         > rst 0 ack=50
         > 300 ack=400
         < rst 400
         > syn 0 ack=1 win=4000
         < 1 ack=1
         > 1:hello ack=1
         < 1 ack=6
         host hears hello",
    ] {
        stage.play(script);
    }
    stage.end();
}

// spec-test: rfc9293 MUST-40 SHLD-19, rfc5681 ack-out-of-order ack-gap ack-delay ack-second
#[test]
fn data_arrives_once_and_in_order() {
    play_open(&[
        // Retransmitted, and retransmitted with more.
        "> 1:hello ack=1
         < 1 ack=6
         > 1:hello ack=1
         < 1 ack=6
         > 4:lo!! ack=1
         < 1 ack=8
         > fin 8 ack=1
         < 1 ack=9
         host hears hello!!
         host hears end",
        // Out of order.
        "> 7:gh ack=1
         < 1 ack=1
         > 4:def ack=1
         < 1 ack=1
         > 1:abc ack=1
         < 1 ack=9
         host hears abcdefgh",
        // Overlapping, from the left, from the right, around.
        "> 5:ef ack=1
         < 1 ack=1
         > 3:cde ack=1
         < 1 ack=1
         > 6:fgh ack=1
         < 1 ack=1
         > 2:bcdefghi ack=1
         < 1 ack=1
         > 1:ab ack=1
         < 1 ack=9
         > 9:ij ack=1
         < 1 ack=11
         host hears abcdefghij",
        // Beyond the window.
        "> 2000000:x ack=1
         < 1 ack=1
         > 1:abc ack=1
         < 1 ack=4
         host hears abc",
        // The FIN arrives before the data.
        "> fin 4 ack=1
         < 1 ack=1
         > 1:abc ack=1
         < 1 ack=5
         host hears abc
         host hears end",
        // Urgent data is ordinary data, wherever the urgent pointer leads: inside, behind, to no
        // data.
        "> 1:abc ack=1 urg=2
         < 1 ack=4
         > 4:def ack=1
         < 1 ack=7
         > 7:g ack=1 urg=0
         < 1 ack=8
         > 8:hi ack=1 urg=9000
         < 1 ack=10
         > 10 ack=1 urg=1
         > 10:jk ack=1
         < 1 ack=12
         host hears abcdefghijk",
        // Out of order, too.
        "> 4:def ack=1 urg=1
         < 1 ack=1
         > 1:abc ack=1 urg=3
         < 1 ack=7
         > fin 7 ack=1 urg=1
         < 1 ack=8
         host hears abcdef
         host hears end",
    ]);
}

#[test]
fn what_the_host_sends_urgently_is_data() {
    let urgent = "host urges !
                  < 1:! ack=1
                  host says ab
                  < 2:ab ack=1
                  > 1 ack=4
                  host urges c?
                  < 4:c? ack=1
                  host urges !
                  < 6:! ack=1
                  > 1:>!< ack=7 urg=2
                  < 7 ack=4
                  host hears >!<
                  host ends
                  < fin 7 ack=4";
    let stage = Stage::set_up();
    stage.play(&format!("{OPEN}\n{urgent}"));
    // By a forward, too.
    stage.play(&format!(
        "host calls
         < syn 0 scale=7
         > syn 0 ack=1 win=4000 mss=1000 scale=2
         < 1 ack=1
         {urgent}"
    ));
    stage.end();
}

// spec-test: rfc9293 MUST-34 SHLD-15 MUST-60, rfc6298 5.1 5.4, rfc2018 left-edge
#[test]
fn data_is_sent_as_far_as_the_window_and_again_until_it_is_acknowledged() {
    play_open(&[
        "host says hello
         < 1:hello ack=1
         < again 1:hello ack=1
         > 1:x ack=1
         < 6 ack=2
         > 2 ack=4
         < again 4:lo ack=2
         > 2 ack=6
         host says more
         < 6:more ack=2",
        // The window is scaled: 500 allows two segments. An answer in between shows where it ends.
        "> 1:x ack=1 win=500
         < 1 ack=2
         host says 5000*a
         < 1:1000*a ack=2
         < 1001:1000*a ack=2
         > 2:x ack=1 win=500
         < 2001 ack=3
         > 3 ack=2001 win=250
         < 2001:1000*a ack=3
         > 3:x ack=2001 win=250
         < 3001 ack=4
         > 4 ack=3001 win=500
         < 3001:1000*a ack=4
         < 4001:1000*a ack=4",
        // Zero window: one-byte probes continue for as long as it lasts.
        "> 1:x ack=1 win=0
         < 1 ack=2
         host says hello
         < 1:h ack=2
         > 2 ack=1 win=0
         < again 1:h ack=2
         > 2 ack=2 win=0
         < 2:e ack=2
         > 2 ack=2 win=100
         < 2:ello ack=2",
    ]);
    // Without scaling the window is the field's value.
    let stage = Stage::set_up();
    stage.play(
        "> syn 0 win=4000 mss=1000
         < syn 0 ack=1 scale=no
         host accepts
         > 1:x ack=1 win=1500
         < 1 ack=2
         host says 5000*a
         < 1:1000*a ack=2
         > 2:x ack=1001 win=1000
         < 1001:1000*a ack=3",
    );
    stage.end();
}

#[test]
fn wrong_numbers_change_nothing() {
    play_open(&[
        // Acknowledged before it was sent.
        "> 1:evil ack=5000
         < 1 ack=1
         > 1:good ack=1
         < 1 ack=5
         host hears good",
        // Without the ACK flag it is ignored.
        "> 1:evil
         > 1:good ack=1
         < 1 ack=5
         host hears good",
        // A reset must have exactly the expected sequence number (RFC 5961, 3).
        "> rst 10
         < 1 ack=1
         > rst 2000000
         > rst 0
         > 1:abc ack=1
         < 1 ack=4
         host hears abc
         > rst 4
         host hears reset
         > 4 ack=20
         < rst 20",
        // A SYN causes a challenge ACK (RFC 5961, 4).
        "> syn 0
         < 1 ack=1
         > syn 5000
         < 1 ack=1
         > syn 2000000
         < 1 ack=1
         > syn 1 ack=1
         < 1 ack=1
         > 1:abc ack=1
         < 1 ack=4
         host hears abc
         > syn 9000 win=4000
         < 1 ack=4
         > rst 4
         host hears reset
         > syn 9000 win=4000
         < syn 0 ack=9001
         host accepts
         > 9001:new ack=1
         < 1 ack=9004
         host hears new",
        // Keep-alive probes (3.8.4), with a byte or without.
        "> 0 ack=1
         < 1 ack=1
         > 0:x ack=1
         < 1 ack=1
         > 1:abc ack=1
         < 1 ack=4
         host hears abc",
    ]);
}

// spec-test: rfc9293 MUST-12 SHLD-3
#[test]
fn connections_end_in_order() {
    play_open(&[
        // The guest closes first; the host still sends.
        "> fin 1:abc ack=1
         < 1 ack=5
         host hears abc
         host hears end
         host says hello
         < 1:hello ack=5
         > 5 ack=6
         host ends
         < fin 6 ack=5
         < again fin 6 ack=5
         > 5 ack=7",
        // The host closes first; the guest still sends. Its FIN may be retransmitted.
        "host says hello
         < 1:hello ack=1
         host ends
         < fin 6 ack=1
         > 1:abc ack=7
         < 7 ack=4
         host hears abc
         > fin 4 ack=7
         < 7 ack=5
         host hears end
         > fin 4 ack=7
         < 7 ack=5",
        // Simultaneous close.
        "host ends
         < fin 1 ack=1
         > fin 1 ack=1
         < 2 ack=2
         > 2 ack=2
         host hears end
         > fin 1 ack=1
         < 2 ack=2",
        // A new connection with the same L4 ports while the old one is in TIME-WAIT.
        "host ends
         < fin 1 ack=1
         > fin 1 ack=2
         < 2 ack=2
         > syn 9000 win=4000
         < syn 0 ack=9001
         host accepts
         > 9001:new ack=1
         < 1 ack=9004
         host hears new",
        // And before the gateway's FIN is acknowledged.
        "> fin 1 ack=1
         < 1 ack=2
         host hears end
         host ends
         < fin 1 ack=2
         > syn 9000 win=4000
         < syn 0 ack=9001
         host accepts
         > 9001:new ack=1
         < 1 ack=9004
         host hears new",
        // The host resets.
        "> 1:abc ack=1
         < 1 ack=4
         host hears abc
         host resets
         < rst 1 ack=4",
        // The guest resets.
        "> 1:abc ack=1
         < 1 ack=4
         host hears abc
         > rst 4 ack=1
         host hears reset",
    ]);
}

/// Bytes of a segment of [`fill`], and consecutive refusals after which a window counts as closed.
const FILL: usize = 1000;
const REFUSALS: usize = 4;

/// Sends a segment; returns acknowledgement number and window of the answer.
#[track_caller]
fn offer(flow: &mut Flow<'_>, sequence: u32, data: Vec<u8>) -> (u32, u16) {
    flow.send(&Segment { sequence, ack: Some(1), data, ..Segment::default() });
    hear(flow)
}

#[track_caller]
fn hear(flow: &mut Flow<'_>) -> (u32, u16) {
    let answer = flow.receive();
    (answer.ack.expect("an acknowledgement"), answer.window.expect("a window"))
}

/// Fills the gateway, whose host reads nothing, until its window is closed: probes are answered,
/// and their data is refused. Returns the next sequence number. The host's kernel makes a little
/// room now and then, which opens the window again.
#[track_caller]
fn fill(flow: &mut Flow<'_>) -> u32 {
    let (mut next, mut refusals) = (1, 0);
    for _ in 0..10_000 {
        let size = if refusals == 0 { FILL } else { 1 };
        let (wanted, window) = offer(flow, next, vec![b'a'; size]);
        refusals = if (wanted, window) == (next, 0) { refusals + 1 } else { 0 };
        next = wanted;
        if refusals == REFUSALS {
            return next;
        }
    }
    panic!("it takes without end");
}

#[test]
fn a_host_that_takes_nothing_shuts_the_window() {
    let stage = Stage::set_up();
    for version in 0..2 {
        let mut flow = stage.flow(version);
        OPEN.lines().for_each(|line| flow.step(line.trim()));
        let next = fill(&mut flow);
        println!("the window is shut at {next}");
        let mut bytes = vec![0; next as usize - 1 + FILL];
        let (taken, rest) = bytes.split_at_mut(next as usize - 1);
        flow.host().read_exact(taken).expect("all that was taken");
        // A window update arrives unsolicited, possibly after answers to the last refused segments.
        assert!((0..100).any(|_| hear(&mut flow).1 > 0));
        // Some of the last refused data may have been accepted since.
        let end = next + FILL as u32 + 1;
        let mut tail = vec![b'a'; FILL];
        tail.push(b'x');
        assert!((0..100).any(|_| offer(&mut flow, next, tail.clone()).0 == end));
        flow.host().read_exact(rest).expect("the rest");
        assert!(bytes.iter().all(|byte| *byte == b'a'));
        flow.step("host hears x");
    }
    stage.end();
}
