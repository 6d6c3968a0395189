//! Tests of writing changes back into the text.

use proptest::prelude::*;

use super::arbitrary;
use crate::config::model::rule::Rule;
use crate::config::model::{Config, Network};
use crate::config::text::{edit, parse};

/// Sorts the tables, because their order has no meaning.
fn sorted(mut config: Config) -> Config {
    config.networks.sort_by(|a, b| a.name.cmp(&b.name));
    config.ports.sort_by(|a, b| a.name.cmp(&b.name));
    config.mirrors.sort_by(|a, b| a.name.cmp(&b.name));
    config
}

/// A text for `config` with comments above and after tables and keys, as a person would write it.
fn commented(config: &Config) -> String {
    let plain = edit("", &Config::default(), config).expect("an empty text can be edited");
    let mut text = String::from("# The lab. Ask before you change it.\n\n");
    for block in blocks(&plain) {
        text.push_str(&format!("# about {}\n", name_of(&block)));
        let (first, rest) = block.split_once('\n').expect("a header line");
        text.push_str(&format!("{first}  # header\n{rest}\n"));
    }
    text.push_str("# The end.\n");
    text
}

/// The tables of a text, each from its header to the line before the next.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            blocks.push(String::new());
        }
        if let Some(block) = blocks.last_mut()
            && !line.is_empty()
            && !line.starts_with('#')
        {
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks
}

fn name_of(block: &str) -> String {
    let header = block.lines().next().unwrap_or_default().split('#').next().unwrap_or_default();
    let name = block.lines().find(|line| line.starts_with("name = ")).unwrap_or("");
    format!("{} {name}", header.trim())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_change_is_written_back(a in arbitrary::config(), b in arbitrary::config()) {
        let text = commented(&a);
        prop_assert_eq!(sorted(parse(&text, "a").unwrap()), sorted(a.clone()), "{}", text);
        let edited = edit(&text, &a, &b).unwrap();
        prop_assert_eq!(sorted(parse(&edited, "b").unwrap()), sorted(b.clone()), "{}", edited);
        prop_assert!(edited.starts_with("# The lab. Ask before you change it.\n\n"), "{}", edited);
        prop_assert!(edited.ends_with("# The end.\n"), "{}", edited);

        let (before, after) = (blocks(&text), blocks(&edited));
        for block in &before {
            let name = name_of(block);
            let comment = format!("# about {name}\n");
            let stays = after.iter().any(|other| name_of(other) == name);
            prop_assert_eq!(edited.contains(&comment), stays, "{} in {}", name, edited);
        }
        for port in a.ports.iter().filter(|port| b.ports.contains(port)) {
            let wanted = format!("[[port]] name = {:?}", port.name);
            let block = before.iter().find(|block| name_of(block) == wanted).unwrap();
            prop_assert!(edited.contains(&format!("# about {wanted}\n{block}")), "{}", edited);
        }
    }

    #[test]
    fn no_change_writes_the_same_bytes(a in arbitrary::config()) {
        let text = commented(&a);
        prop_assert_eq!(edit(&text, &a, &a).unwrap(), text);
    }
}

const LAB: &str = r#"# Made by hand.

[[network]]            # the only one
name = 'lab'           # in single quotes
mtu = 1_500

# The first guest.
[[port]]
type = "vhost-user"
name = "vm1"
network = "lab"
tag = 10               # students
path = "/run/trama/vm1.sock"

[port.external-ids]
owner = "alice"        # since May
room = "12"
"#;

fn edited(text: &str, change: impl FnOnce(&mut Config)) -> String {
    let from = parse(text, "lab.toml").expect("valid");
    let mut to = from.clone();
    change(&mut to);
    let text = edit(text, &from, &to).expect("edited");
    assert_eq!(sorted(parse(&text, "lab.toml").expect("still valid")), sorted(to), "{text}");
    text
}

#[test]
fn a_value_changes_and_its_line_stays() {
    let text = edited(LAB, |config| config.ports[0].vlan.tag = Some(20));
    assert_eq!(text, LAB.replace("tag = 10", "tag = 20"));
    let text = edited(LAB, |config| {
        config.ports[0].external_ids.insert("owner".into(), "bob".into());
    });
    assert_eq!(text, LAB.replace("alice", "bob"));
}

#[test]
fn defaults_are_not_spelled_out() {
    let text = edited(LAB, |config| {
        config.networks.push(Network::new("quiet"));
        config.ports[0].cable = false;
    });
    let wanted = LAB
        .replace(
            "\n\n# The first",
            "\n\n[[network]]\nname = \"quiet\"\nmode = \"internal\"\n\n# The first",
        )
        .replace("vm1.sock\"\n", "vm1.sock\"\ncable = false\n");
    assert_eq!(text, wanted);
    let back = edited(&text, |config| config.ports[0].cable = true);
    assert_eq!(back, wanted.replace("cable = false", "cable = true"));
}

#[test]
fn a_removed_table_leaves_the_comments_of_others() {
    let text = edited(LAB, |config| config.ports.clear());
    assert_eq!(text, LAB.split_once("\n# The first").expect("marker").0);
    let text = edited(LAB, |config| {
        config.ports[0].network = None;
        config.networks.clear();
    });
    assert!(text.starts_with("# Made by hand.\n\n# The first guest.\n[[port]]"), "{text}");
}

#[test]
fn what_stands_above_all_stays_there_when_all_tables_go() {
    let only = "# Made by hand.\n\n# the lab\n[[network]]\nname = \"lab\"\n# The end.\n";
    let text = edited(only, |config| {
        config.daemon.workers = 2;
        config.networks.clear();
    });
    assert_eq!(text, "# Made by hand.\n\n[daemon]\nworkers = 2\n# The end.\n");
}

#[test]
fn changes_that_others_made_meanwhile_stay() {
    let from = parse(LAB, "lab.toml").unwrap();
    let mut to = from.clone();
    to.ports[0].vlan.tag = Some(20);
    let theirs = LAB.replace("mtu = 1_500", "mtu = 9000");
    assert_eq!(edit(&theirs, &from, &to).unwrap(), theirs.replace("tag = 10", "tag = 20"));
}

#[test]
fn any_text_fits_into_a_value() {
    edited(LAB, |config| {
        config.ports[0].external_ids.insert("a\n\"b'".into(), "\n# ]\r\n\t\u{1}\\".into());
    });
}

#[test]
fn line_ends_and_inline_lists_are_understood() {
    let dos = LAB.replace('\n', "\r\n");
    let text = edited(&dos, |config| config.ports[0].vlan.tag = Some(20));
    assert_eq!(text, dos.replace("tag = 10", "tag = 20"));
    let inline = "network = [{ name = \"a\" }, { name = \"b\" }]\n";
    edited(inline, |config| config.networks[1].mtu = 9000);
}

#[test]
fn rules_that_stay_stay_as_they_are_written() {
    let text = "[[network]]\nname = \"n\"\nmode = \"nat-network\"\nforward = [\n  \
                \"ssh:tcp:[]:2222:[10.0.2.15]:22\",\n  \
                \"web, tcp, , 8080, 10.0.2.15, 80\",\n  \
                # names\n  \"dns,udp,,5353,10.0.2.15,53\",\n]\n";
    let from = parse(text, "").unwrap();
    let changed = |change: fn(&mut Network)| {
        let mut to = from.clone();
        change(&mut to.networks[0]);
        let edited = edit(text, &from, &to).unwrap();
        assert_eq!(parse(&edited, "").unwrap(), to, "{edited}");
        edited
    };
    let web = "  \"web, tcp, , 8080, 10.0.2.15, 80\",\n";
    assert_eq!(changed(|network| drop(network.forward.remove(1))), text.replace(web, ""));
    let more = changed(|network| {
        let other = Rule { name: "x".into(), host_port: 9, ..network.forward[0].clone() };
        network.forward.push(other);
    });
    assert!(
        more.starts_with(text.strip_suffix("]\n").unwrap().trim_end_matches([',', '\n'])),
        "{more}"
    );
    let turned = changed(|network| network.forward.reverse());
    assert!(turned.contains("web, tcp, , 8080") && turned.contains("ssh:tcp:[]"), "{turned}");
    let none = changed(|network| network.forward.clear());
    assert!(!none.contains("forward"), "{none}");
}
