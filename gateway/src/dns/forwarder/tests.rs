use super::*;
use crate::dns::edns::opt;
use crate::dns::message::{REFUSED, TYPE_A, TYPE_PTR, query, with_opt};
use crate::dns::pending_query::ANSWER_TIMEOUT;
use crate::testing::{client, lab};

const T0: Duration = Duration::ZERO;

struct Lab {
    forwarder: Forwarder,
    random: Random,
    upstream: Vec<Upstream>,
    over_tcp: bool,
    now: Duration,
}

impl Lab {
    fn new(servers: &[&str]) -> Lab {
        let mut config = lab();
        config.hosts = vec![("vm1".into(), [10, 0, 2, 15].into())];
        let mut forwarder = Forwarder::new(&config);
        forwarder.set_servers(servers.iter().map(|text| text.parse().unwrap()).collect());
        let mut next = 0x1234;
        let random = Box::new(move || {
            next += 1;
            next
        });
        Lab { forwarder, random, upstream: Vec::new(), over_tcp: false, now: T0 }
    }

    fn ask(&mut self, port: u64, bytes: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        self.ask_as(client(port), bytes)
    }

    fn ask_as(&mut self, asker: Client, bytes: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        let Lab { forwarder, random, upstream, .. } = self;
        forwarder.query(self.now, (&lab(), None), random, (asker, bytes), upstream)
    }

    /// The code of the immediate answer, and whether it has EDNS.
    fn code_at_once(&mut self, bytes: &[u8]) -> (u16, bool) {
        let reply = match self.ask(1, bytes) {
            Ok(reply) => reply.unwrap(),
            Err(refusal) => refusal.reply.unwrap(),
        };
        let message = Message::parse_header(&reply).unwrap();
        assert_eq!(reply[..2], bytes[..2]);
        let upper = if message.edns.opt.is_some() { reply[reply.len() - 6] } else { 0 };
        (u16::from(upper) << 4 | message.code(), message.edns.opt.is_some())
    }

    /// Lets time pass until `at`. Returns the answers that clients get by then.
    fn until(&mut self, at: Duration) -> Vec<Vec<u8>> {
        let mut replies = Vec::new();
        while let Some(due) = self.forwarder.deadline().filter(|due| *due <= at) {
            self.now = due;
            let Lab { forwarder, random, upstream, .. } = self;
            replies.extend(forwarder.poll(due, random, upstream).into_iter().map(|it| it.1));
        }
        self.now = at;
        replies
    }

    /// The queries sent since the last call.
    fn all_asked(&mut self) -> Vec<(usize, SocketAddr, Vec<u8>)> {
        let mut asked = Vec::new();
        for wanted in std::mem::take(&mut self.upstream) {
            if let Upstream::Ask { slot, server, message, .. } = wanted {
                asked.push((slot, server, message));
            }
        }
        asked
    }

    /// The last query sent.
    fn asked(&mut self) -> (usize, SocketAddr, Vec<u8>) {
        match self.upstream.pop().unwrap() {
            Upstream::Ask { slot, server, message, over_tcp } => {
                self.over_tcp = over_tcp;
                (slot, server, message)
            }
            other => panic!("{other:?}"),
        }
    }

    fn handle_reply(&mut self, slot: usize, bytes: &[u8]) -> Result<Option<Vec<u8>>, ServiceDrop> {
        let Lab { forwarder, random, upstream, .. } = self;
        let reply = forwarder.answer(self.now, slot, bytes, random, upstream)?;
        Ok(reply.map(|(_, bytes)| bytes))
    }
}

fn answer(question: &[u8]) -> Vec<u8> {
    Message::parse(question).unwrap().answer(&[vec![192, 0, 2, 1]])
}

#[test]
fn an_answer_goes_back_under_the_clients_id() {
    let mut lab = Lab::new(&["192.0.2.53:53"]);
    assert_eq!(lab.ask(1, &query(7, "example.org", TYPE_A)), Ok(None));
    let (slot, server, message) = lab.asked();
    assert_eq!(server.to_string(), "192.0.2.53:53");
    assert_ne!(message[..2], [0, 7], "the client chose the id");
    let reply = lab.handle_reply(slot, &answer(&message)).unwrap().unwrap();
    assert_eq!(reply, answer(&query(7, "example.org", TYPE_A)));
    assert_eq!(lab.upstream, [Upstream::Close { slot }]);
    assert_eq!(lab.handle_reply(slot, &answer(&message)), Err(ServiceDrop::DnsUnasked), "twice");
    assert_eq!(lab.forwarder.deadline(), None);
}

#[test]
fn forged_answers_are_not_relayed() {
    let mut lab = Lab::new(&["192.0.2.53:53"]);
    lab.ask(1, &query(7, "example.org", TYPE_A)).unwrap();
    let (slot, _, message) = lab.asked();
    let id = u16::from_be_bytes([message[0], message[1]]);
    let forged = [
        answer(&query(id.wrapping_add(1), "example.org", TYPE_A)),
        answer(&query(id, "example.com", TYPE_A)),
        answer(&query(id, "example.org", TYPE_PTR)),
        message.clone(),
        answer(&message)[..11].to_vec(),
    ];
    for bytes in forged {
        assert_eq!(lab.handle_reply(slot, &bytes), Err(ServiceDrop::DnsUnasked), "{bytes:?}");
    }
    assert!(
        lab.handle_reply(slot, &answer(&message)).unwrap().is_some(),
        "the real one still comes"
    );
}

#[test]
fn the_next_server_is_asked_and_in_the_end_it_fails() {
    let mut lab = Lab::new(&["192.0.2.1:53", "192.0.2.2:53"]);
    let question = query(7, "example.org", TYPE_A);
    lab.ask(1, &question).unwrap();
    let (slot, _, first) = lab.asked();
    let refusal = Message::parse(&first).unwrap().reply(REFUSED);
    assert_eq!(lab.handle_reply(slot, &refusal), Ok(None));
    let (_, second, message) = lab.asked();
    assert_eq!(second.to_string(), "192.0.2.2:53");
    assert_ne!(message[..2], first[..2], "the id was used twice");
    assert!(lab.until(ANSWER_TIMEOUT - RETRY).is_empty());
    let wanted = Message::parse(&question).unwrap().reply(SERVER_FAILURE);
    assert_eq!(lab.until(ANSWER_TIMEOUT), [wanted]);
    assert!(lab.all_asked().iter().all(|asked| asked.1 == second), "the first has refused");
    assert_eq!(lab.forwarder.deadline(), None);
}

#[test]
fn a_slow_answer_is_taken_while_others_are_asked() {
    let servers = ["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"];
    for slow in 0..servers.len() {
        let mut lab = Lab::new(&servers);
        let question = query(7, "example.org", TYPE_A);
        lab.ask(1, &question).unwrap();
        assert!(lab.until(ANSWER_TIMEOUT - Duration::from_millis(1)).is_empty());
        let asked = lab.all_asked();
        let order: Vec<_> = asked.iter().map(|asked| asked.1.to_string()).collect();
        assert_eq!(order, [servers[0], servers[1], servers[2], servers[0]]);
        assert_eq!((&asked[3].0, &asked[3].2), (&asked[0].0, &asked[0].2), "repeated as it was");
        // The others fail at the last moment.
        for (slot, _, message) in
            asked.iter().take(3).filter(|it| it.1.to_string() != servers[slow])
        {
            let failure = Message::parse(message).unwrap().reply(SERVER_FAILURE);
            assert_eq!(lab.handle_reply(*slot, &failure), Ok(None), "{slow} may still answer");
        }
        let (slot, _, message) = &asked[slow];
        assert_eq!(lab.handle_reply(*slot, &answer(message)), Ok(Some(answer(&question))));
        let closed = lab.upstream.iter().filter(|it| matches!(it, Upstream::Close { .. }));
        assert_eq!((closed.count(), lab.forwarder.deadline()), (3, None));
    }
}

#[test]
fn late_answers_are_checked_like_others() {
    let mut lab = Lab::new(&["192.0.2.1:53", "192.0.2.2:53"]);
    lab.ask(1, &query(7, "example.org", TYPE_A)).unwrap();
    lab.until(RETRY);
    let asked = lab.all_asked();
    let [(first, _, one), (second, _, two)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(
        lab.handle_reply(*second, &answer(one)),
        Err(ServiceDrop::DnsUnasked),
        "next_unasked's id"
    );
    assert_eq!(lab.handle_reply(*first, &answer(two)), Err(ServiceDrop::DnsUnasked));
    assert_eq!(
        lab.handle_reply(first + 2, &answer(one)),
        Err(ServiceDrop::DnsUnasked),
        "not asked"
    );
    assert!(lab.handle_reply(*first, &answer(one)).unwrap().is_some());
}

#[test]
fn the_last_failure_is_relayed_once_no_other_may_answer() {
    let mut lab = Lab::new(&["192.0.2.1:53", "192.0.2.2:53"]);
    lab.ask(1, &query(7, "example.org", TYPE_A)).unwrap();
    lab.until(RETRY);
    let asked = lab.all_asked();
    let Lab { forwarder, random, upstream, .. } = &mut lab;
    assert_eq!(forwarder.failed(RETRY, asked[1].0, random, upstream), None, "unreachable");
    let refusal = Message::parse(&asked[0].2).unwrap().reply(REFUSED);
    let reply = lab.handle_reply(asked[0].0, &refusal).unwrap().unwrap();
    assert_eq!(Message::parse(&reply).unwrap().code(), REFUSED);
}

#[test]
fn a_retransmitted_query_is_the_same_query() {
    let mut lab = Lab::new(&["192.0.2.1:53"]);
    let question = query(7, "example.org", TYPE_A);
    lab.ask(1, &question).unwrap();
    let (slot, _, message) = lab.asked();
    let other_port = Client { remote: (client(1).remote.0, 4001), ..client(1) };
    for (asker, bytes, what) in [
        (client(2), question.clone(), "of next_unasked switch port"),
        (other_port, question.clone(), "of next_unasked UDP port"),
        (client(1), query(8, "example.org", TYPE_A), "under next_unasked id"),
        (client(1), query(7, "example.com", TYPE_A), "for next_unasked name"),
        (client(1), with_opt(&question, &opt(1232, 0, false, &[])), "with EDNS"),
    ] {
        lab.ask_as(asker, &bytes).unwrap();
        assert_eq!(lab.all_asked().len(), 1, "{what} it is next_unasked");
    }
    lab = Lab::new(&["192.0.2.1:53"]);
    lab.ask(1, &question).unwrap();
    lab.all_asked();
    lab.until(Duration::from_secs(4));
    lab.all_asked();
    assert_eq!(lab.ask(1, &question), Ok(None));
    assert!(lab.all_asked().is_empty(), "it is under way");
    assert!(lab.until(Duration::from_secs(8)).is_empty(), "its client waits again");
    assert_eq!(lab.handle_reply(slot, &answer(&message)), Ok(Some(answer(&question))));
    assert!(lab.until(Duration::from_secs(60)).is_empty(), "two answers");
    // The timeout has a limit.
    lab.now = T0;
    for second in (0..30).step_by(2) {
        let ended = lab.until(Duration::from_secs(second));
        if !ended.is_empty() {
            assert!((15..17).contains(&second), "{second}");
            return;
        }
        lab.ask(1, &question).unwrap();
    }
    panic!("it goes on");
}

#[test]
fn a_burst_is_answered_or_refused_at_once() {
    let mut lab = Lab::new(&["192.0.2.1:53"]);
    lab.forwarder.shares = FairShares::new(MAX_PENDING, 1);
    let question = |id: u16| query(id, "example.org", TYPE_A);
    let mut taken = 0;
    for id in 0..10_000 {
        match lab.ask(1, &question(id)) {
            Ok(None) => taken += 1,
            Err(Refusal { reason: ServiceDrop::DnsLimit, reply: Some(reply) }) => {
                let wanted = Message::parse(&question(id)).unwrap().reply(SERVER_FAILURE);
                assert_eq!(reply, wanted);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(taken, MAX_PENDING / 2);
    assert_eq!(lab.ask(2, &question(0)), Ok(None), "next_unasked sender's");
    let asked = lab.all_asked();
    let slots: std::collections::HashSet<_> = asked.iter().map(|asked| asked.0).collect();
    assert!(slots.len() == taken + 1 && slots.iter().all(|slot| *slot < MAX_SERVERS * (taken + 1)));
    for (slot, _, message) in &asked {
        assert!(lab.handle_reply(*slot, &answer(message)).unwrap().is_some());
    }
    assert_eq!(lab.ask(1, &question(0)), Ok(None), "there is room again");
}

#[test]
fn answers_to_edns_have_edns() {
    let edns = opt(1232, 0, true, &[0xff, 0xfe, 0, 1, 7]);
    let mut lab = Lab::new(&[]);
    let bare = query(7, "vm1", TYPE_A);
    let with = |name: &str, kind| with_opt(&query(7, name, kind), &edns);
    for (bytes, code, what) in [
        (with("vm1", TYPE_A), 0, "own name"),
        (with("vm1", 28), 0, "own name, no such records"),
        (with("15.2.0.10.in-addr.arpa", TYPE_PTR), 0, "own address"),
        (with("16.2.0.10.in-addr.arpa", TYPE_PTR), 3, "unknown own address"),
        (with("example.org", TYPE_A), SERVER_FAILURE, "no servers"),
        (with("example.org", 252), NOT_IMPLEMENTED, "zone transfer"),
        (with_opt(&bare, &opt(1232, 1, false, &[])), BAD_VERSION, "version 1"),
        (with_opt(&with("example.org", TYPE_A), &edns), FORMAT_ERROR, "two OPT records"),
        (with_opt(&bare, &opt(1232, 0, false, &[0, 1, 0, 9])), FORMAT_ERROR, "half an option"),
    ] {
        assert_eq!(lab.code_at_once(&bytes), (code, true), "{what}");
        // The same without EDNS, where that is possible.
        if ![BAD_VERSION, FORMAT_ERROR].contains(&code) {
            let mut plain = bytes[..bytes.len() - edns.len()].to_vec();
            plain[11] = 0;
            assert_eq!(lab.code_at_once(&plain), (code, false), "{what}");
        }
    }
    let mut notify = with("example.org", 6);
    notify[2] |= 0x20;
    assert_eq!(lab.code_at_once(&notify), (NOT_IMPLEMENTED, true));
    let mut none = [&with("a", TYPE_A)[..12], &edns].concat();
    none[5] = 0;
    assert_eq!(lab.code_at_once(&none), (FORMAT_ERROR, true), "no question");
    // At the limit of pending queries.
    lab.forwarder.set_servers(vec!["192.0.2.1:53".parse().unwrap()]);
    lab.forwarder.shares = FairShares::new(0, 1);
    assert_eq!(lab.code_at_once(&with("example.org", TYPE_A)), (SERVER_FAILURE, true));
}

#[test]
fn own_answers_fit_what_the_client_takes() {
    let mut lab = Lab::new(&[]);
    let mut config = crate::testing::lab();
    let address = |last| ("many".to_owned(), [10, 0, 2, last].into());
    config.hosts = (1..=100).map(address).collect();
    lab.forwarder.reconfigure(&config);
    let question = query(7, "many", TYPE_A);
    let asker = Client { room: 1472, ..client(1) };
    for (opt_size, fits) in
        [(None, false), (Some(0), false), (Some(1472), false), (Some(4096), true)]
    {
        let bytes = match opt_size {
            Some(size) => with_opt(&question, &opt(size, 0, false, &[])),
            None => question.clone(),
        };
        let asker = Client { room: if fits { 4000 } else { asker.room }, ..asker };
        let reply = lab.ask_as(asker, &bytes).unwrap().unwrap();
        assert_eq!(reply[2] & 2 == 0, fits, "{opt_size:?}: {} bytes", reply.len());
        assert_eq!(reply[11] == 1, opt_size.is_some(), "{opt_size:?}");
    }
}

#[test]
fn a_server_without_edns_is_asked_without() {
    let mut lab = Lab::new(&["192.0.2.1:53", "192.0.2.2:53"]);
    let bare = query(7, "example.org", TYPE_A);
    let edns = with_opt(&bare, &opt(1232, 0, false, &[]));
    let header_only = |message: &[u8]| {
        let mut bytes = message[..12].to_vec();
        bytes[2..12].copy_from_slice(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    };
    let whole = |message: &[u8], code| {
        let mut reply = Message::parse(message).unwrap().without_edns().unwrap();
        reply[2] |= 0x80;
        reply[3] |= code;
        reply
    };
    for id in 0..3 {
        let say = |message: &[u8]| match id {
            0 => header_only(message),
            1 => whole(message, 1),
            _ => whole(message, 4),
        };
        let mut edns = edns.clone();
        edns[1] = id;
        lab.ask(1, &edns).unwrap();
        let (slot, server, message) = lab.asked();
        assert_eq!(message[2..], edns[2..]);
        let mut forged = say(&message);
        forged[0] ^= 1;
        assert_eq!(lab.handle_reply(slot, &forged), Err(ServiceDrop::DnsUnasked));
        assert_eq!(lab.handle_reply(slot, &say(&message)), Ok(None));
        let (again, same, plain) = lab.asked();
        assert_eq!((again, same, &plain[2..]), (slot, server, &bare[2..]));
        assert_ne!(plain[..2], message[..2]);
        assert_eq!(lab.upstream.pop(), Some(Upstream::Close { slot }), "a new socket");
        let reply = lab.handle_reply(slot, &answer(&plain)).unwrap().unwrap();
        assert_eq!((reply[1], reply[11], reply[7]), (id, 1, 1), "an answer with EDNS");
        lab.upstream.clear();
    }
    // A server that fails in any case has failed.
    lab.ask(1, &bare).unwrap();
    let (slot, _, message) = lab.asked();
    assert_eq!(lab.handle_reply(slot, &header_only(&message)), Ok(None));
    let (slot, server, message) = lab.asked();
    assert_eq!(server.to_string(), "192.0.2.2:53");
    let reply = lab.handle_reply(slot, &header_only(&message)).unwrap().unwrap();
    assert_eq!(Message::parse(&reply).unwrap().code(), SERVER_FAILURE);
}

#[test]
fn a_server_that_is_silent_to_edns_is_asked_without() {
    for (servers, plain) in [(1, [false, false, true, true]), (3, [false, false, false, true])] {
        let servers: Vec<_> = (1..=servers).map(|n| format!("192.0.2.{n}:53")).collect();
        let mut lab = Lab::new(&servers.iter().map(String::as_str).collect::<Vec<_>>());
        let bare = query(7, "example.org", TYPE_A);
        lab.ask(1, &with_opt(&bare, &opt(1232, 0, false, &[]))).unwrap();
        lab.until(RETRY * 3);
        let asked = lab.all_asked();
        let without_edns: Vec<_> = asked.iter().map(|asked| asked.2.len() == bare.len()).collect();
        assert_eq!(without_edns, plain, "{servers:?}");
        assert_eq!((&asked[3].0, &asked[3].2[..2]), (&asked[0].0, &asked[0].2[..2]));
        let reply = lab.handle_reply(asked[3].0, &answer(&asked[3].2)).unwrap().unwrap();
        assert_eq!((reply[11], reply[7]), (1, 1));
    }
}

#[test]
fn pending_queries_go_on_to_new_servers() {
    let mut lab = Lab::new(&["192.0.2.1:53"]);
    lab.ask(1, &query(7, "example.org", TYPE_A)).unwrap();
    let (slot, ..) = lab.asked();
    lab.forwarder.set_servers(vec!["192.0.2.9:53".parse().unwrap()]);
    lab.until(RETRY);
    assert_eq!(lab.upstream.first(), Some(&Upstream::Close { slot }));
    let (slot, server, message) = lab.asked();
    assert_eq!(server.to_string(), "192.0.2.9:53");
    lab.forwarder.set_servers(Vec::new());
    lab.until(RETRY * 3);
    assert!(lab.handle_reply(slot, &answer(&message)).unwrap().is_some());
}

#[test]
fn names_of_the_network_are_answered_here() {
    let mut lab = Lab::new(&["192.0.2.1:53"]);
    let reply = lab.ask(1, &query(7, "VM1", TYPE_A)).unwrap().unwrap();
    assert_eq!(reply[reply.len() - 4..], [10, 0, 2, 15]);
    let reply = lab.ask(1, &query(7, "vm1", 28)).unwrap().unwrap();
    assert_eq!(Message::parse(&reply).unwrap().code(), 0, "has no IPv6 address, but is there");
    let reply = lab.ask(1, &query(7, "15.2.0.10.in-addr.arpa", TYPE_PTR)).unwrap().unwrap();
    assert_eq!(reply[reply.len() - 5..], *b"\x03vm1\0");
    let reply = lab.ask(1, &query(7, "16.2.0.10.in-addr.arpa", TYPE_PTR)).unwrap().unwrap();
    assert_eq!(Message::parse(&reply).unwrap().code(), 3, "ours, and unknown");
    assert!(lab.upstream.is_empty(), "asked outside");
}

#[test]
fn an_answer_too_long_for_the_network_is_cut() {
    let mut lab = Lab::new(&["192.0.2.1:53"]);
    lab.ask(1, &query(7, "example.org", TYPE_A)).unwrap();
    let (slot, _, message) = lab.asked();
    let long = Message::parse(&message).unwrap().answer(&vec![vec![0; 4]; 100]);
    let reply = lab.handle_reply(slot, &long).unwrap().unwrap();
    assert_eq!((reply.len(), reply[2] & 2), (message.len(), 2), "TC is not set");
}

#[test]
fn a_query_over_tcp_gets_the_whole_answer() {
    let mut lab = Lab::new(&["192.0.2.1:53", "192.0.2.2:53"]);
    let asker = Client { stream: Some(3), room: 65_535, ..client(1) };
    let question = query(7, "example.org", TYPE_A);
    assert_eq!(lab.ask_as(asker, &question), Ok(None));
    let (slot, _, message) = lab.asked();
    assert!(lab.over_tcp);
    let refusal = Message::parse(&message).unwrap().reply(SERVER_FAILURE);
    assert_eq!(lab.handle_reply(slot, &refusal), Ok(None));
    let (slot, server, message) = lab.asked();
    assert_eq!((server.to_string().as_str(), lab.over_tcp), ("192.0.2.2:53", true));
    assert!(lab.until(RETRY * 3).is_empty() && lab.all_asked().is_empty(), "nothing is lost");
    let long = Message::parse(&message).unwrap().answer(&vec![vec![0; 4]; 1000]);
    let reply = lab.handle_reply(slot, &long).unwrap().unwrap();
    assert_eq!((reply.len(), &reply[2..]), (long.len(), &long[2..]));
    lab.upstream.clear();
    lab.ask(1, &question).unwrap();
    lab.asked();
    assert!(!lab.over_tcp);
    // Two queries on a stream are separate, even if they are equal.
    lab.ask_as(asker, &question).unwrap();
    lab.ask_as(asker, &question).unwrap();
    assert_eq!(lab.all_asked().len(), 2);
    let zone = lab.ask_as(asker, &query(7, "example.org", 252)).unwrap().unwrap();
    assert_eq!(Message::parse(&zone).unwrap().code(), NOT_IMPLEMENTED);
}

#[test]
fn what_is_no_question_is_refused() {
    let mut lab = Lab::new(&["192.0.2.1:53"]);
    let question = query(7, "example.org", TYPE_A);
    let silent = Refusal { reason: ServiceDrop::BadDns, reply: None };
    assert_eq!(lab.ask(1, &answer(&question)), Err(silent.clone()), "an answer");
    assert_eq!(lab.ask(1, &question[..11]), Err(silent), "half a header");
    assert_eq!(lab.code_at_once(&question[..20]), (FORMAT_ERROR, false));
    assert_eq!(lab.code_at_once(&question[..12]), (FORMAT_ERROR, false));
    let mut notify = question.clone();
    notify[2] |= 0x20;
    assert_eq!(lab.code_at_once(&notify), (NOT_IMPLEMENTED, false));
    assert_eq!(lab.code_at_once(&notify[..20]), (NOT_IMPLEMENTED, false));
    lab.forwarder.set_servers(Vec::new());
    assert_eq!(lab.code_at_once(&question), (SERVER_FAILURE, false));
}
