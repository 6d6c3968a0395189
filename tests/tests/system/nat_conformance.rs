//! The NAT's TCP by the letter of RFC 9293 (and RFC 5961 where segments may be forged): a machine
//! whose segments are scripted, over IPv4 and IPv6. How scripts are read stands in
//! `tests/src/script.rs`.

use std::io::Read;

use trama_tests::script::{Flow, Segment, Stage};

/// The machine opens a flow; its windows are given in units of four bytes.
const OPEN: &str = "> syn 0 win=4000 mss=1000 scale=2
                    < syn 0 ack=1 scale=7
                    host accepts
                    > 1 ack=1 win=4000";

/// Plays scripts, each on a flow of its own that is opened first.
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
        // Without scaling there is none; the SYN is answered each time it comes.
        "> syn 0 win=4000 mss=1000
         < syn 0 ack=1 scale=no
         > syn 0 win=4000 mss=1000
         < again syn 0 ack=1 scale=no
         host accepts
         > 1:hello ack=1
         < 1 ack=6
         host hears hello",
        // Data that comes with the SYN may come again.
        "> syn 0:hello win=4000
         < syn 0 ack=1
         > 1:hello ack=1
         < 1 ack=6
         host accepts
         host hears hello",
        // An acknowledgement of something else is not believed (3.10.7.4, SYN-RECEIVED).
        "> syn 0 win=4000
         < syn 0 ack=1
         > 1:evil ack=77
         < rst 77
         > 1:good ack=1
         < 1 ack=5
         host accepts
         host hears good",
        // Nobody listens.
        "host refuses
         > syn 0 win=4000
         < rst 0 ack=1",
        // There is no flow (3.10.7.1).
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
        // Both call each other (3.5, figure 8).
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
        // A reset of something else is nothing, and what the machine remembers of an old
        // connection is reset (3.5, figure 9).
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

#[test]
fn data_arrives_once_and_in_order() {
    play_open(&[
        // Again, and again with more.
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
        // The end comes before the data.
        "> fin 4 ack=1
         < 1 ack=1
         > 1:abc ack=1
         < 1 ack=5
         host hears abc
         host hears end",
        // Urgent data is data, wherever its end is said to be: inside, behind, nowhere.
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
        // The window is scaled: 500 is two segments. An answer in between shows where it stops.
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
        // Shut: one byte asks, for as long as it takes.
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
    // Without scaling the window is what it says.
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
        // Without an acknowledgement it is nothing.
        "> 1:evil
         > 1:good ack=1
         < 1 ack=5
         host hears good",
        // A reset needs the one right number (RFC 5961, 3).
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
        // A SYN has the machine say whether it has forgotten (RFC 5961, 4).
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
        // Somebody asks whether we are there (3.8.4), with a byte or without.
        "> 0 ack=1
         < 1 ack=1
         > 0:x ack=1
         < 1 ack=1
         > 1:abc ack=1
         < 1 ack=4
         host hears abc",
    ]);
}

#[test]
fn connections_end_in_order() {
    play_open(&[
        // The machine first; the host still speaks.
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
        // The host first; the machine still speaks. Its end may come again.
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
        // Both at once.
        "host ends
         < fin 1 ack=1
         > fin 1 ack=1
         < 2 ack=2
         > 2 ack=2
         host hears end
         > fin 1 ack=1
         < 2 ack=2",
        // A new connection of the same ports while the old one lingers.
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
        // And while the gateway's own end is not acknowledged.
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
        // The host breaks off.
        "> 1:abc ack=1
         < 1 ack=4
         host hears abc
         host resets
         < rst 1 ack=4",
        // The machine breaks off.
        "> 1:abc ack=1
         < 1 ack=4
         host hears abc
         > rst 4 ack=1
         host hears reset",
    ]);
}

/// Bytes of a segment of [`fill`], and segments in a row that a window refuses which is shut.
const FILL: usize = 1000;
const REFUSALS: usize = 4;

/// Sends this from `sequence` on, and hears an answer: what is wanted next, and the window.
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

/// Fills the gateway, whose host takes nothing, until its window is shut: who asks is answered, and
/// what asks is not taken. The number of what it would take next. The host's kernel finds room for
/// a little more now and then; that opens the window again.
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
        // The machine hears of it unasked; answers to the last refusals may be in front.
        assert!((0..100).any(|_| hear(&mut flow).1 > 0));
        // Some of what was offered last may have been taken since.
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
