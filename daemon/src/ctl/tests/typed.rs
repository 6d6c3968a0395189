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
            "list port --columns=name",
            "no row \"--columns=name\" in table Port (note that options \
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
