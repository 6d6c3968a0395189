//! Mistakes of users: a clear message with a remedy, and no other effect.

use trama_tests::{Guest, GuestOptions, Host, Netns, Nic, Pinging, SOON, Tramad, wait_until};

fn configuration(left: &Netns, right: &Netns) -> String {
    let mut text = "[[network]]\nname = \"lab\"\n\n[[port]]\nname = \"guest\"\nnetwork = \"lab\"\n\
                    type = \"vhost-user\"\npath = \"{dir}/guest.sock\"\n"
        .to_owned();
    for (name, netns, number) in [("left", left, 1), ("right", right, 2)] {
        text += &format!(
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\nifname = \"{name}\"\n\
             netns = \"{}\"\naddress = \"10.1.0.{number}/24\"\n",
            netns.name()
        );
    }
    text
}

#[test]
fn a_guest_without_shared_memory_is_told_what_it_lacks() {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let mut tramad = Tramad::start(&configuration(&left, &right));
    let bystanders = Pinging::start(&left, "10.1.0.2", 0.01);

    let nic = Nic::connecting(tramad.path("guest.sock"), "52:54:00:00:00:01");
    let options =
        GuestOptions { shared_memory: false, ..GuestOptions::new("guest", [nic.clone()]) };
    let guest = Guest::start(&options);
    // Its rings run, and no driver has used them.
    guest.run("ip link show eth0");
    assert!(!tramad.log().contains("share=on"), "{}", tramad.log());
    guest.run("ip link set eth0 up");
    wait_until("the status says it", SOON, || {
        tramad.ctl("get Interface guest status").contains("share=on").then_some(())
    });
    assert!(tramad.log().contains("share=on"), "{}", tramad.log());
    drop(guest);

    // The port works as before.
    let guest = Guest::boot("guest", nic);
    guest.address("10.1.0.3/24");
    guest.wait_for_ping("10.1.0.1", SOON);
    let status = tramad.ctl("get Interface guest status");
    assert!(!status.contains("last_error"), "a healthy guest: {status}");
    bystanders.stop_without_loss(20);
    assert!(tramad.is_running());
    tramad.stop();
}

#[test]
fn an_mtu_that_the_network_does_not_have_is_named_where_the_user_looks() {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let tramad = Tramad::start(&configuration(&left, &right));
    let wait_for_error = |text: &str| {
        wait_until(&format!("the status says {text}"), SOON, || {
            let shown = tramad.ctl("get Interface guest status");
            shown.contains(text).then_some(())
        });
    };
    let nic = Nic::connecting(tramad.path("guest.sock"), "52:54:00:00:00:01");
    let guest = Guest::boot("guest", nic.clone().with("host_mtu=9000"));
    wait_for_error("an MTU of 9000 for the guest, as the network has 1500: lower host_mtu");
    assert!(
        tramad.log().contains("an MTU of 9000 for the guest, as the network has 1500"),
        "{}",
        tramad.log()
    );
    drop(guest);

    let guest = Guest::boot("guest", nic.with("host_mtu=1500"));
    guest.address("10.1.0.3/24");
    guest.wait_for_ping("10.1.0.1", SOON);
    tramad.ctl("set Bridge lab mtu=1400");
    wait_for_error("the guest was told an MTU of 1500, but the network now has 1400");
    tramad.stop();
}

#[test]
fn refused_edits_change_nothing() {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let tramad = Tramad::start(&configuration(&left, &right));
    let bystanders = Pinging::start(&left, "10.1.0.2", 0.01);
    let before = (tramad.configuration(), tramad.ctl("show"));

    // Invalid commands: the message names the mistake.
    for (line, expected) in [
        ("add-port nowhere p1", "nowhere"),
        ("set Port guest tag=5000", "4095"),
        ("set Port nobody tag=1", "nobody"),
        ("set Port guest colour=blue", "colour"),
        ("del-port lab nobody", "nobody"),
        ("add-br lab", "lab"),
        ("add-port lab p1 -- set Interface p1 type=carrier-pigeon", "carrier-pigeon"),
        ("add-br net1 -- add-port lab left", "left"),
        ("no-such-command", "no-such-command"),
    ] {
        let answer = tramad.try_ctl(&line.split_whitespace().collect::<Vec<_>>());
        assert_ne!(answer.status, 0, "tramactl {line}: {}", answer.text);
        assert!(answer.text.contains(expected), "tramactl {line}: {}", answer.text);
        assert_eq!((tramad.configuration(), tramad.ctl("show")), before, "tramactl {line}");
    }

    // Invalid files: the message names place and key, and nothing is applied.
    let good = before.0.clone();
    for (addition, expected) in [
        ("[[network]]\nname = \"lab\"\n", "lab"),
        ("[[port]]\nname = \"p\"\nnetwork = \"lab\"\ntype = \"tap\"\ntagg = 3\n", "tagg"),
        ("[[port]]\nname = \"p\"\nnetwork = \"nowhere\"\ntype = \"tap\"\n", "nowhere"),
        ("[[port]]\nname = \"p\"\nnetwork = \"lab\"\ntype = \"tap\"\ntag = \"ten\"\n", "tag"),
        ("[[network]\n", ""),
    ] {
        let line = good.lines().count() + 2;
        tramad.write_configuration(&format!("{good}\n{addition}"));
        let answer = tramad.try_ctl(&["reload"]);
        assert_ne!(answer.status, 0, "{addition}");
        assert!(answer.text.contains(expected), "{addition}: {}", answer.text);
        let place =
            (line..line + 6).any(|line| answer.text.contains(&format!("trama.toml:{line}:")));
        assert!(place, "{addition}: no line from {line} on in: {}", answer.text);
        tramad.write_configuration(&good);
        assert_eq!(tramad.ctl("show"), before.1, "{addition}");
    }
    tramad.ctl("reload");
    bystanders.stop_without_loss(1);
    tramad.stop();
}

#[test]
fn a_path_that_cannot_be_a_socket_stops_only_its_port() {
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let text = configuration(&left, &right)
        + "\n[[port]]\nname = \"lost\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
           path = \"{dir}/no/such/directory/lost.sock\"\n";
    let tramad = Tramad::start(&text);
    left.wait_for_ping("10.1.0.2", SOON);
    let log = tramad.log();
    assert!(log.contains("no/such/directory"), "{log}");
    let error = tramad.ctl("get Interface lost error");
    assert!(error.contains("no/such/directory"), "{error}");

    // A file that the daemon must not remove.
    let file = tramad.path("precious");
    std::fs::write(&file, "precious").unwrap();
    let path = format!("options:path={}", file.display());
    let words = ["add-port", "lab", "p1", "--", "set", "Interface", "p1", "type=vhost-user", &path];
    let answer = tramad.try_ctl(&words);
    assert_eq!(answer.status, 65, "{}", answer.text);
    assert!(answer.text.contains("precious"), "{}", answer.text);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    tramad.stop();
}
