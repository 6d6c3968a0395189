//! Command lines that are wrong, misspelt or arbitrary.

use super::*;

#[test]
fn a_command_line_that_is_wrong_says_how() {
    for (line, expected) in [
        ("dance", "unknown command 'dance'; use --help for help"),
        ("--columns=a", "missing command name (use --help for help)"),
        ("--columns", "option '--columns' needs a value"),
        ("--columns list-br", "missing command name (use --help for help)"),
        ("--if-exists=1 del-br x", "option '--if-exists' takes no value"),
        ("--may-exist list-br", "'list-br' command has no '--may-exist' option"),
        ("list-br x", "'list-br' command takes at most 0 arguments"),
        ("del-br", "'del-br' command requires at least 1 arguments: [--if-exists] del-br BRIDGE"),
        ("link vm1 sideways", "link is \"up\" or \"down\", not \"sideways\""),
        (
            "add-br fake lab 10",
            "there are no fake bridges; give the ports of a VLAN its tag \
          instead: add-port lab PORT tag=10",
        ),
        (
            "reload -- list-br",
            "reload cannot be combined with other commands: it reads the whole configuration file",
        ),
        (
            "add-br --may-exist lab",
            "'add-br': options stand before the command's name: --may-exist add-br ...",
        ),
        (
            "list port --columns=name",
            "'list': options stand before the command's name: --columns=name list ...",
        ),
        (
            "add-br x --dry-run",
            "'add-br': options stand before the command's name: --dry-run add-br ...",
        ),
        ("list port -f json", "'list': options stand before the command's name: -f list ..."),
        (
            "list port --column",
            "no row \"--column\" in table Port (note that options \
          must precede command names)",
        ),
        ("get port vm1 external_ids:", "external_ids: missing key after \":\""),
    ] {
        assert_eq!(refused(&lab(), line), expected, "{line}");
    }
    assert!(parse(&[]).is_err());
    assert!(parse(&[vec![]]).is_err());
}

#[test]
fn values_with_colons_and_whole_rules_need_no_quotes() {
    let config = edit(&lab(), "set Port vm1 mac=52:54:00:00:00:01 external_ids=a=b:c,d=e");
    let said = |line: &str| said(&config, &Snapshot::default(), line);
    assert_eq!(said("get Port vm1 mac external_ids"), "\"52:54:00:00:00:01\"\n{a=\"b:c\", d=e}");
    assert_eq!(said("--columns=name find Port mac=52:54:00:00:00:01 -- get Port vm1 name"), "vm1");
    let nat = "add-br n -- set Bridge n mode=nat-network subnet=fd00:56::/64,10.0.2.0/24 forward=";
    let rule = "ssh,tcp,127.0.0.1,2222,10.0.2.15,22";
    let colons = "web:tcp:[::1]:80:[fd00:56::15]:80";
    for text in [rule, colons, "a:tcp::1::2,b:tcp::3::4"] {
        let config = edit(&lab(), &format!("{nat}{text}"));
        let rules = if text.starts_with("a:") { 2 } else { 1 };
        assert_eq!(config.network("n").unwrap().forward.len(), rules, "{text}");
        let more = edit(&config, "add Bridge n forward dns,udp,,53,,53");
        assert_eq!(more.network("n").unwrap().forward.len(), rules + 1, "{text}");
        let less = edit(&more, "remove Bridge n forward dns,udp,,53,,53");
        assert_eq!(less.network("n"), config.network("n"));
    }
    let short = refused(&lab(), &format!("{nat}ssh,tcp,2222,22"));
    assert!(short.starts_with("\"ssh,tcp,2222,22\" has 4 of 6 fields; write it as"), "{short}");
    let quote = refused(&lab(), "set Bridge lab external_ids=a=b=c");
    assert!(quote.contains("unexpected \"=\"") && quote.contains("double quotes"), "{quote}");
}

#[test]
fn a_misspelt_name_comes_with_the_one_that_was_meant() {
    for (line, expected) in [
        ("lst-br", "unknown command 'lst-br'; did you mean list-br?"),
        ("list-ports lba", "no bridge named lba; did you mean lab?"),
        ("set Bridge lba mtu=1400", "no row \"lba\" in table Bridge; did you mean lab?"),
        ("set Port vm1 network=lba", "no bridge named lba; did you mean lab?"),
        ("link vm_1 up", "no port named vm_1; did you mean vm1?"),
        ("iface-to-br mv1", "no interface named mv1; did you mean vm1?"),
        ("forward list lba", "no network or port named lba; did you mean lab?"),
        (
            "get Port vm1 tga",
            "Port does not contain a column whose name matches \"tga\"; did you mean tag?",
        ),
    ] {
        assert_eq!(refused(&lab(), line), expected, "{line}");
    }
}

#[test]
fn nothing_that_is_typed_makes_a_command_panic() {
    let pieces = [
        "",
        "=",
        ":",
        "[",
        "]",
        "{",
        "}",
        "{=}",
        "\"",
        "\"a",
        "a",
        "vm1",
        "lab",
        "Port",
        "tag",
        "tag=",
        "tag=1",
        "external_ids",
        "external_ids:",
        "external_ids:\"",
        "external_ids:a=",
        "options=",
        "é",
        "--",
        "--columns=é",
        "trunks=1-4095",
        "trunks{in}1-9",
        "type=\"",
        "\u{0}",
    ];
    let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
    // A fixed walk through many combinations; the constant is an arbitrary odd number.
    let mut state = 1_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for _ in 0..20_000 {
        let mut words = vec![names[next(names.len())].to_owned()];
        for _ in 0..next(6) {
            words.push(pieces[next(pieces.len())].to_owned());
        }
        if let Ok(calls) = parse(&[words]) {
            let _ = run(&calls, lab(), &running());
        }
    }
}
