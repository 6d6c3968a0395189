//! Many random edits of the configuration, by `tramactl` and by file and `reload`, under traffic:
//! after each edit the file, the running state and the listings agree with a simple model, and
//! ports that no edit names lose no frame.
//!
//! The seed is printed; `TRAMA_SEED` replays it, `TRAMA_EDITS` makes the run longer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use trama_tests::{Guest, Host, Netns, Nic, Pinging, Tramad};

const EDITS: u64 = 200;
const NAMES: [&str; 6] = ["p0", "p1", "p2", "p3", "p4", "p5"];
const NETWORKS: [&str; 3] = ["lab", "net1", "net2"];

/// The model's record of a port that may be edited.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    network: String,
    tag: Option<u16>,
    trunks: BTreeSet<u16>,
    tap: bool,
}

#[derive(Clone, Debug, Default)]
struct Model {
    networks: BTreeSet<String>,
    ports: BTreeMap<String, Port>,
}

/// SplitMix64: a few lines, and the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn tag(&mut self) -> u16 {
        self.below(4095) as u16
    }
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn random_edits_leave_others_alone() {
    let seed = variable("TRAMA_SEED", 1);
    println!("TRAMA_SEED={seed}");
    let (left, right) = (Netns::new("left"), Netns::new("right"));
    let tramad = Tramad::start(&untouched(&left, &right));
    let guest =
        Guest::boot("guest", Nic::connecting(tramad.path("guest.sock"), "52:54:00:00:00:01"));
    guest.address("10.1.0.1/24");

    let flows = [
        Pinging::start(&left, "10.1.0.102", 0.002),
        Pinging::start(&right, "10.1.0.1", 0.01),
        Pinging::start(&guest, "10.1.0.101", 0.05),
    ];
    let frames = tramad.statistic("left", "rx_packets");

    let mut random = Random(seed);
    let mut model = Model { networks: ["lab".to_owned()].into(), ..Model::default() };
    for number in 0..variable("TRAMA_EDITS", EDITS) {
        let done = edit(&tramad, &mut model, &mut random);
        check(&tramad, &model, &format!("edit {number}: {done}"));
    }

    for flow in flows {
        flow.stop_without_loss(20);
    }
    for port in ["left", "right", "guest"] {
        let drops = tramad.ctl(&format!("get Interface {port} statistics:dropped"));
        assert_eq!(drops.trim(), "0", "{port}: {}", tramad.ctl(&format!("counters {port}")));
    }
    assert!(tramad.statistic("left", "rx_packets") > frames + 1000);
    tramad.stop();
}

/// Returns the network and the ports that no edit names.
fn untouched(left: &Netns, right: &Netns) -> String {
    let mut text = "# Kept by every edit.\n[[network]]\nname = \"lab\"\n\n[[port]]\n\
                    name = \"guest\"\nnetwork = \"lab\"\ntype = \"vhost-user\"\n\
                    path = \"{dir}/guest.sock\" # kept too\nrole = \"server\"\ntag = 10\n"
        .to_owned();
    for (name, netns, number) in [("left", left, 101), ("right", right, 102)] {
        let netns = netns.name();
        let _ = write!(
            text,
            "\n[[port]]\nname = \"{name}\"\nnetwork = \"lab\"\ntype = \"tap\"\nifname = \"{name}\"\n\
             netns = \"{netns}\"\naddress = \"10.1.0.{number}/24\"\ntag = 10\n"
        );
    }
    text
}

/// Makes one random edit in the daemon and in the model, and returns its description.
fn edit(tramad: &Tramad, model: &mut Model, random: &mut Random) -> String {
    let name = random.pick(&NAMES);
    let by_file = random.below(4) == 0;
    let Some(port) = model.ports.get_mut(name) else {
        let networks: Vec<&str> = model.networks.iter().map(String::as_str).collect();
        let port = Port {
            network: random.pick(&networks).to_owned(),
            tag: (random.below(2) == 0).then(|| random.tag()),
            trunks: BTreeSet::new(),
            tap: random.below(2) == 0,
        };
        let done =
            if by_file { add_by_file(tramad, name, &port) } else { add(tramad, name, &port) };
        model.ports.insert(name.to_owned(), port);
        return done;
    };
    match random.below(8) {
        0 | 1 => {
            model.ports.remove(name);
            if by_file {
                remove_by_file(tramad, name)
            } else {
                ctl(tramad, format!("del-port {name}"))
            }
        }
        2 | 3 => {
            let tag = random.tag();
            if !port.trunks.is_empty() {
                return refused(tramad, &format!("set Port {name} tag={tag}"));
            }
            port.tag = Some(tag);
            ctl(tramad, format!("set Port {name} tag={tag}"))
        }
        4 => {
            port.tag = None;
            ctl(tramad, format!("clear Port {name} tag"))
        }
        5 => {
            let trunk = random.tag();
            if port.tag.is_some() {
                return refused(tramad, &format!("add Port {name} trunks {trunk}"));
            }
            port.trunks.insert(trunk);
            ctl(tramad, format!("add Port {name} trunks {trunk}"))
        }
        6 => {
            port.trunks.clear();
            ctl(tramad, format!("clear Port {name} trunks"))
        }
        _ => edit_network(tramad, model, random),
    }
}

/// Adds a network, or removes one with all its ports. "lab" is never removed.
fn edit_network(tramad: &Tramad, model: &mut Model, random: &mut Random) -> String {
    let name = random.pick(&NETWORKS[1..]);
    if model.networks.insert(name.to_owned()) {
        return ctl(tramad, format!("add-br {name}"));
    }
    model.networks.remove(name);
    model.ports.retain(|_, port| port.network != name);
    ctl(tramad, format!("del-br {name}"))
}

fn ctl(tramad: &Tramad, line: String) -> String {
    tramad.ctl(&line);
    line
}

/// An access port has no trunks: this edit must fail without effect.
fn refused(tramad: &Tramad, line: &str) -> String {
    let answer = tramad.try_ctl(&line.split_whitespace().collect::<Vec<_>>());
    assert_ne!(answer.status, 0, "tramactl {line}");
    assert!(answer.text.contains("trunks"), "tramactl {line}: {}", answer.text);
    format!("{line}, which was refused")
}

fn add(tramad: &Tramad, name: &str, port: &Port) -> String {
    let tag = port.tag.map(|tag| format!(" tag={tag}")).unwrap_or_default();
    let interface = if port.tap {
        format!("type=tap options:ifname={}", ifname(name))
    } else {
        format!("type=vhost-user options:path={}", tramad.path(&format!("{name}.sock")).display())
    };
    let network = &port.network;
    ctl(tramad, format!("add-port {network} {name}{tag} -- set Interface {name} {interface}"))
}

/// Returns an interface name that no other test's daemon uses in the same namespace.
fn ifname(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn add_by_file(tramad: &Tramad, name: &str, port: &Port) -> String {
    let mut text = tramad.configuration();
    let _ = write!(text, "\n[[port]]\nname = \"{name}\"\nnetwork = \"{}\"\n", port.network);
    if let Some(tag) = port.tag {
        let _ = writeln!(text, "tag = {tag}");
    }
    if port.tap {
        let _ = write!(text, "type = \"tap\"\nifname = \"{}\"\n", ifname(name));
    } else {
        let path = tramad.path(&format!("{name}.sock"));
        let _ = write!(text, "type = \"vhost-user\"\npath = \"{}\"\n", path.display());
    }
    tramad.write_configuration(&text);
    ctl(tramad, "reload".to_owned()) + &format!(" with a new port {name}")
}

fn remove_by_file(tramad: &Tramad, name: &str) -> String {
    let text = tramad.configuration();
    // Each table begins with its header; one of them belongs to this port.
    let kept: Vec<&str> =
        text.split("[[").filter(|table| !table.contains(&format!("name = \"{name}\"\n"))).collect();
    tramad.write_configuration(&kept.join("[["));
    ctl(tramad, "reload".to_owned()) + &format!(" without the port {name}")
}

/// Compares the listings, `show` and the file with the model.
fn check(tramad: &Tramad, model: &Model, what: &str) {
    let fixed: BTreeSet<String> = ["guest", "left", "right"].map(str::to_owned).into();
    let networks: BTreeSet<String> = tramad.ctl("list-br").lines().map(str::to_owned).collect();
    assert_eq!(networks, model.networks, "{what}");
    for network in &model.networks {
        let listed: BTreeSet<String> =
            tramad.ctl(&format!("list-ports {network}")).lines().map(str::to_owned).collect();
        let mut wanted = if network == "lab" { fixed.clone() } else { BTreeSet::new() };
        let on_it = model.ports.iter().filter(|(_, port)| port.network == *network);
        wanted.extend(on_it.map(|(name, _)| name.clone()));
        assert_eq!(listed, wanted, "{what}: ports of {network}");
    }

    let show = tramad.ctl("show");
    let file: toml::Table = tramad.configuration().parse().expect("the file is TOML");
    assert!(tramad.configuration().starts_with("[daemon]"), "{what}: order is kept");
    for comment in ["# Kept by every edit.", "# kept too"] {
        assert!(tramad.configuration().contains(comment), "{what}: comments are kept");
    }
    let tables = file["port"].as_array().expect("ports");
    assert_eq!(tables.len(), model.ports.len() + fixed.len(), "{what}: ports in the file");
    for (name, port) in &model.ports {
        let table = tables.iter().find(|table| table["name"].as_str() == Some(name));
        let table = table.unwrap_or_else(|| panic!("{what}: {name} is not in the file"));
        let number = |value: &toml::Value| value.as_integer().and_then(|n| u16::try_from(n).ok());
        let trunks: BTreeSet<u16> = table
            .get("trunks")
            .and_then(toml::Value::as_array)
            .map(|list| list.iter().filter_map(number).collect())
            .unwrap_or_default();
        let written = Port {
            network: table["network"].as_str().unwrap_or_default().to_owned(),
            tag: table.get("tag").and_then(number),
            trunks,
            tap: table["type"].as_str() == Some("tap"),
        };
        assert_eq!(&written, port, "{what}: {name} in the file");

        let section = show.split("Port ").find(|text| text.trim_matches('"').starts_with(name));
        let section = section.unwrap_or_else(|| panic!("{what}: no {name} in\n{show}"));
        let shown = section
            .lines()
            .find_map(|line| line.trim().strip_prefix("tag: "))
            .and_then(|tag| tag.parse().ok());
        assert_eq!(shown, port.tag, "{what}: {name} in\n{show}");
        let running = tramad.ctl(&format!("get Port {name} trunks"));
        let listed = port.trunks.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        assert_eq!(running.trim(), format!("[{listed}]"), "{what}: trunks of {name}");
    }
}
