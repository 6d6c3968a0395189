//! What is stored and not in force: which command reports it, and in which words.

use trama_clients::RunningDaemon;

const LAB: &str = r#"
[[network]]
name = "lab"

[[port]]
name = "vm1"
network = "lab"
type = "vhost-user"
path = "{dir}/vm1.sock"

[[port]]
name = "vm2"
type = "vhost-user"
path = "{dir}/vm2.sock"
"#;

#[test]
fn a_setting_that_is_not_in_force_is_reported_by_the_command_that_makes_it() {
    let lab = RunningDaemon::start(LAB);
    let told = "tramactl: port vm1 runs, but its socket keeps its owner, group and mode: there is \
                no group \"no-such-group\"; make it with groupadd\n";
    for setting in ["socket-group=no-such-group", "socket-mode=0600"] {
        let set = lab.ctl(&format!("set Interface vm1 options:{setting}"));
        assert_eq!((set.exit, set.err.as_str()), (65, told));
    }
    // Others, and other settings of the port, are in force.
    lab.ok("set Port vm1 tag=20 -- set Port vm2 tag=30 network=lab -- set Bridge lab mtu=1400");
    let error = lab.ok("get Interface vm1 error link_state");
    assert!(error.contains("no-such-group") && error.ends_with("\ndown\n"), "{error}");
    assert!(lab.ok("show").contains("error: \"its socket keeps"));
    lab.ok("remove Interface vm1 options socket-group");
    assert_eq!(lab.ok("get Interface vm1 error -- get Interface vm2 error"), "[]\n[]\n");

    let new = "add-port lab vm3 -- set Interface vm3 type=vhost-user options:path={dir}/3.sock \
               options:socket-group=no-such-group";
    let new = lab.ctl(new);
    let told = "tramactl: port vm3 is stored but does not run: there is no group";
    assert_eq!(new.exit, 65);
    assert!(new.err.starts_with(told), "{}", new.err);
}

#[test]
fn a_network_that_does_not_run_is_called_one() {
    let lab = RunningDaemon::start(LAB);
    let told = "tramactl: network office is stored but does not run: ";
    let made = "add-br office -- set Bridge office mode=bridged uplink=nosuch0";
    for line in [made, "set Bridge office mtu=1400", "set Bridge office mtu=1450 external_ids:a=b"]
    {
        let answer = lab.ctl(line);
        assert_eq!((answer.exit, answer.err.lines().count()), (65, 1), "{line}: {answer:?}");
        assert!(answer.err.starts_with(told), "{line}: {}", answer.err);
    }
    lab.ok("add-br other -- set Bridge lab mtu=1400 -- set Port vm1 tag=3");
    assert!(lab.ctl("reload").err.starts_with(told), "of the file as a whole");
    lab.ok("del-br office");
    lab.ok("reload");
}
