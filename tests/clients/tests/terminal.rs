//! What `tramactl` shows on a terminal, and that it shows scripts something else.

use trama_clients::RunningDaemon;

const LAB: &str = r#"
[[network]]
name = "lab"

[[port]]
name = "vm1"
network = "lab"
type = "vhost-user"
path = "{dir}/vm1.sock"
mac = "52:54:00:00:00:01"
tag = 10
"#;

/// The sequences by which a terminal's colours change.
const ESCAPE: char = '\u{1b}';

#[test]
fn people_see_no_quotes_and_scripts_do() {
    let lab = RunningDaemon::start(LAB);
    let line = "--columns=name,mac,tag list Port vm1";
    let quoted = "name                : vm1\nmac                 : \"52:54:00:00:00:01\"\n\
                  tag                 : 10\n";
    assert_eq!(lab.ok(line), quoted);
    let seen = lab.on_terminal(line, &[]);
    assert!(seen.contains(ESCAPE) && seen.contains(" 52:54:00:00:00:01\n"), "{seen:?}");
    let plain = lab.on_terminal(line, &[("NO_COLOR", "1")]);
    assert_eq!(plain, quoted.replace('"', ""));
    // Whoever asks for a form gets that.
    for form in ["-d string", "-d json", "-f csv", "-f json", "--bare", "--oneline"] {
        let line = format!("{form} {line}");
        assert_eq!(lab.on_terminal(&line, &[]), lab.ok(&line), "{form}");
    }
}

#[test]
fn columns_fit_their_values_and_numbers_stand_to_the_right() {
    let lab = RunningDaemon::start(LAB);
    let plain = |line: &str| lab.on_terminal(line, &[("NO_COLOR", "1")]);
    assert_eq!(plain("fdb/show lab"), "port  VLAN  MAC  Age\n");
    let counters = "port  network  rx_frames  rx_bytes  tx_frames  tx_bytes  dropped  drops\n\
                    vm1   lab              0         0          0         0        0  {}\n";
    assert_eq!(plain("counters"), counters);
    assert_eq!(plain("-f table --columns=name,tag list Port vm1"), "name  tag\nvm1    10\n");
    assert_eq!(plain("--no-headings -f table --columns=name,tag list Port vm1"), "vm1  10\n");
    // Units, and the form for people, in a pipe as well.
    let human = lab.ok("-H counters");
    assert!(human.contains("0 B") && !human.contains(ESCAPE), "{human}");
}

#[test]
fn a_fault_is_red() {
    let lab = RunningDaemon::start(&LAB.replace("vm1.sock", "no-such-folder/vm1.sock"));
    let shown = lab.on_terminal("show", &[]);
    let fault = shown.lines().find(|line| line.contains("error: ")).expect("a fault");
    assert!(fault.starts_with("\u{1b}[31m") && fault.ends_with("\u{1b}[0m"), "{fault:?}");
    assert!(!lab.ok("show").contains(ESCAPE));
}
