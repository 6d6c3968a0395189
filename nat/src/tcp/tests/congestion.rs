//! The retransmission timer and the congestion window, by when and how much is sent.

use super::*;

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Time to the end of the timer.
fn timeout(end: &End) -> Duration {
    end.tcp.deadline().unwrap() - end.now
}

/// Bytes of data that it sends now.
fn flight(end: &mut End) -> usize {
    end.output().iter().map(|sent| sent.data.len()).sum()
}

// spec-test: rfc9293 MUST-22 MUST-23, rfc6298 2.1 2.5 early 5.5 5.6
#[test]
fn a_syn_is_sent_again_after_a_second_and_then_after_twice_the_time() {
    let mut end = End::new(Connection::accept(T0, &syn(), OURS, 1460));
    assert_eq!(end.output().len(), 1);
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60, 60] {
        assert_eq!(timeout(&end), Duration::from_secs(seconds));
        assert_eq!(end.wait().len(), 1);
    }
    assert!(end.now >= Duration::from_secs(180));
}

// spec-test: rfc9293 MUST-18, rfc6298 2.2 2.3 karn sample 5.3
#[test]
fn the_timeout_follows_the_round_trips_of_what_was_sent_once() {
    let mut end = End::new(Connection::accept(T0, &syn(), OURS, 1460));
    end.output();
    end.now += millis(400);
    end.ask(data(0, &[], 0));
    let send = |end: &mut End, count: usize| {
        end.tcp.push(vec![1; count]);
        assert_eq!(flight(end), count);
    };
    send(&mut end, 200);
    // SRTT 400, RTTVAR 200.
    assert_eq!(timeout(&end), millis(1200));
    end.now += millis(400);
    end.ask(data(0, &[], 100));
    // SRTT 400, RTTVAR 150; the timer begins again.
    assert_eq!(timeout(&end), millis(1000));
    end.ask(data(0, &[], 200));
    // A segment that is sent again gives no sample, however late its ACK.
    send(&mut end, 100);
    end.wait();
    end.now += millis(5000);
    end.ask(data(0, &[], 300));
    send(&mut end, 100);
    assert_eq!(timeout(&end), millis(1000));
}

// spec-test: rfc9293 MUST-19
// spec-test: rfc5681 use handshake initial-ssthresh avoidance recovery-ssthresh recovery-end
// spec-test: rfc5681 timeout-window
#[test]
fn the_window_opens_slowly_and_a_loss_halves_it() {
    let mss = usize::from(MSS);
    let mut end = open();
    end.tcp.push(vec![1; 90 * mss]);
    assert_eq!(flight(&mut end), 10 * mss, "the handshake has not opened it");
    end.handle(&data(0, &[], 10 * mss));
    assert_eq!(flight(&mut end), 20 * mss, "slow start doubles it");
    let mut acked = 10 * mss;
    for _ in 0..3 {
        end.handle(&data(0, &[], acked));
    }
    assert!(flight(&mut end) > 0, "the loss is repaired");
    acked += 20 * mss;
    end.handle(&data(0, &[], acked));
    assert_eq!(flight(&mut end), 10 * mss, "half of what was in flight");
    acked += 10 * mss;
    end.handle(&data(0, &[], acked));
    assert_eq!(flight(&mut end), 11 * mss, "one segment more in a round trip");
    let again: usize = end.wait().iter().map(|sent| sent.data.len()).sum();
    assert_eq!(again, mss, "one segment after a timeout");
}
