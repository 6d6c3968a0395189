//! What the help of one command says besides its usage and options.

use super::CommandId;

/// Commands that are listed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Networks and their ports.
    Networks,
    /// What VMMs are given for a port.
    Vmms,
    /// Records and their columns.
    Records,
    /// What runs.
    State,
    /// What gateways do.
    Gateways,
    /// The daemon and the client.
    Daemon,
    /// What scripts for Open vSwitch expect.
    Compatibility,
}

impl Group {
    /// All of them, in the order of the help.
    pub const ALL: [Group; 7] = [
        Group::Networks,
        Group::Vmms,
        Group::Records,
        Group::State,
        Group::Gateways,
        Group::Daemon,
        Group::Compatibility,
    ];

    /// Its heading.
    pub fn heading(self) -> &'static str {
        match self {
            Group::Networks => "Networks and ports",
            Group::Vmms => "Arguments for VMMs",
            Group::Records => "Records and columns",
            Group::State => "What runs",
            Group::Gateways => "Gateways: DHCP, NAT, forwards",
            Group::Daemon => "The daemon, and tramactl itself",
            Group::Compatibility => "For scripts that were written for ovs-vsctl",
        }
    }
}

/// The help of a command.
#[derive(Clone, Copy, Debug)]
pub struct Help {
    /// The commands that it is listed with.
    pub group: Group,
    /// What a user should know, in a few sentences.
    pub text: &'static str,
    /// Command lines, without `tramactl`.
    pub examples: [&'static str; 3],
    /// Related commands.
    pub see_also: &'static [&'static str],
}

impl CommandId {
    /// The help of the command.
    pub fn help(self) -> Help {
        let (group, text, examples, see_also) = match self {
            CommandId::Show => (
                Group::State,
                "Prints the networks with their ports, what does not run and why, frontends that \
                 wait, gateways, and what of the sandbox is not in force.",
                ["show", "--oneline show", "-t 5 show"],
                ["counters", "list", "flows"].as_slice(),
            ),
            CommandId::AddBr => (
                Group::Networks,
                "A bridge is a network. A new one has mode internal: its ports reach each other \
                 and nothing else.",
                [
                    "add-br lab",
                    "--may-exist add-br lab",
                    "add-br out -- set Bridge out mode=nat-network subnet=10.0.9.0/24",
                ],
                ["del-br", "list-br", "set"].as_slice(),
            ),
            CommandId::DelBr => (
                Group::Networks,
                "Its ports are removed with it, and guests on them are disconnected.",
                ["del-br lab", "--if-exists del-br lab", "--dry-run del-br lab"],
                ["add-br", "del-port"].as_slice(),
            ),
            CommandId::ListBr => (
                Group::Networks,
                "Prints one name a line.",
                ["list-br", "--oneline list-br", "--columns=name,mode list Bridge"],
                ["list-ports", "show", "list"].as_slice(),
            ),
            CommandId::BrExists => (
                Group::Networks,
                "For scripts: prints nothing, and the exit status is 0 or 2.",
                ["br-exists lab", "-t 1 br-exists lab", "--may-exist add-br lab"],
                ["list-br", "add-br"].as_slice(),
            ),
            CommandId::AddPort => (
                Group::Networks,
                "An interface of the host that has the port's name joins, as type system; without \
                 one, the port is a new TAP device. type of its Interface says otherwise. Words \
                 after the name set columns of the Port. A guest behind NAT gets its address by \
                 DHCP.",
                [
                    "add-port lab tap0",
                    "add-port lab vm1 tag=20 -- set Interface vm1 type=vhost-user",
                    "--may-exist add-port lab vm2 -- set Interface vm2 type=vhost-user \
                     options:path=/run/trama/vm2.sock",
                ],
                ["del-port", "qemu", "libvirt", "link"].as_slice(),
            ),
            CommandId::DelPort => (
                Group::Networks,
                "Its guest is disconnected, and its socket or device is removed. If a bridge is \
                 named, the port must be on it.",
                ["del-port vm1", "del-port lab vm1", "--if-exists del-port vm1"],
                ["add-port", "link"].as_slice(),
            ),
            CommandId::Detach => (
                Group::Networks,
                "Its device goes away, if nothing else has it open. A port of the configuration \
                 file is refused.",
                ["detach web", "--if-exists detach web", "--dry-run detach web"],
                ["attach", "del-port"].as_slice(),
            ),
            CommandId::ListPorts | CommandId::ListIfaces => (
                Group::Networks,
                "Prints one name a line. A port has one interface, of the same name.",
                ["list-ports lab", "list-ifaces lab", "--columns=name,tag list Port"],
                ["port-to-br", "list-br", "list"].as_slice(),
            ),
            CommandId::PortToBr | CommandId::IfaceToBr => (
                Group::Networks,
                "A port and its interface have the same name.",
                ["port-to-br vm1", "iface-to-br vm1", "get Port vm1 network"],
                ["list-ports", "list-br"].as_slice(),
            ),
            CommandId::Link => (
                Group::Networks,
                "The guest sees its link go down and up. Ports keep their settings.",
                ["link vm1 down", "link vm1 up", "get Port vm1 cable"],
                ["show", "del-port"].as_slice(),
            ),
            CommandId::List => (
                Group::Records,
                "Tables are Bridge, Port, Interface, Open_vSwitch (its record is .), Mirror, \
                 sFlow, IPFIX, QoS and Queue; NetFlow, Controller, Manager and Flow_Table are \
                 empty. A record is named by its name, its _uuid or the beginning of that, an \
                 Interface also by the file name of its socket, sFlow and IPFIX by their bridge.",
                ["list Port", "list Interface vm1", "--columns=name,tag,trunks -f json list Port"],
                ["find", "get", "show"].as_slice(),
            ),
            CommandId::Find => (
                Group::Records,
                "Operators are = != < > <= >=, and with braces for sets and maps: {=} {!=} {<} \
                 {>} {<=} {>=} {in} {not-in}.",
                [
                    "find Port tag=20",
                    "--columns=name find Interface type=vhost-user",
                    "find Port network=lab cable=false",
                ],
                ["list", "get"].as_slice(),
            ),
            CommandId::Get => (
                Group::Records,
                "Prints one value a line; without columns it only checks that the record exists.",
                [
                    "get Port vm1 tag",
                    "get Interface vm1 statistics:rx_packets",
                    "--if-exists get Interface vm1 options:path",
                ],
                ["set", "list", "counters"].as_slice(),
            ),
            CommandId::Set => (
                Group::Records,
                "All of it is changed, or nothing. The configuration file is edited in place; \
                 --no-save leaves it as it is.",
                [
                    "set Port vm1 tag=20",
                    "set Bridge out mode=nat subnet=10.0.2.0/24",
                    "set Interface vm1 type=vhost-user options:path=/run/trama/vm1.sock",
                ],
                ["get", "add", "remove", "clear"].as_slice(),
            ),
            CommandId::Add => (
                Group::Records,
                "For columns that hold a set or a map.",
                [
                    "add Port trunk trunks 10 20",
                    "add Port vm1 external_ids owner=ann",
                    "add Bridge out reflect mdns",
                ],
                ["remove", "set", "clear"].as_slice(),
            ),
            CommandId::Remove => (
                Group::Records,
                "From a map a key is removed, or a pair if its value matches.",
                [
                    "remove Port trunk trunks 10",
                    "remove Port vm1 external_ids owner",
                    "remove Port vm1 external_ids owner=ann",
                ],
                ["add", "clear", "set"].as_slice(),
            ),
            CommandId::Clear => (
                Group::Records,
                "For columns that may be empty.",
                ["clear Port vm1 tag", "clear Port trunk trunks", "clear Port vm1 external_ids"],
                ["remove", "set"].as_slice(),
            ),
            CommandId::Create => (
                Group::Records,
                "A Mirror, sFlow or IPFIX lasts as long as a Bridge refers to it. Records of QoS \
                 and Queue are kept and have no effect; those of NetFlow, Controller, Manager and \
                 Flow_Table end with the transaction. A name that begins with @ stands for the \
                 record until then. Networks and ports are made with add-br and add-port.",
                [
                    "--id=@p get Port vm1 -- --id=@m create Mirror name=m0 select_all=true \
                     output_port=@p -- set Bridge lab mirrors=@m",
                    "--id=@s create sFlow targets=10.0.0.1:6343 -- set Bridge lab sflow=@s",
                    "--id=@q create QoS type=linux-noop -- set Port vm1 qos=@q",
                ],
                ["destroy", "set", "add-br", "add-port"].as_slice(),
            ),
            CommandId::Destroy => (
                Group::Records,
                "A Mirror ends at once, sFlow and IPFIX once their Bridge refers to them no more. \
                 Networks and ports are removed with del-br and del-port.",
                [
                    "--if-exists destroy Mirror m0",
                    "--all destroy QoS",
                    "clear Bridge lab mirrors sflow ipfix",
                ],
                ["create", "clear", "del-br", "del-port"].as_slice(),
            ),
            CommandId::WaitUntil => (
                Group::Records,
                "The transaction takes place once the conditions hold. If they do not within the \
                 time of -t, nothing has changed, and the exit status is 142.",
                [
                    "-t 10 wait-until Interface vm1 admin_state=up",
                    "wait-until Bridge lab",
                    "wait-until Port vm1 -- set Port vm1 tag=20",
                ],
                ["find", "get"].as_slice(),
            ),
            CommandId::FdbShow => (
                Group::State,
                "Prints port, VLAN, MAC address and age in seconds. Without a bridge, of all \
                 networks.",
                ["fdb/show lab", "--names fdb/show lab", "-f json fdb/show"],
                ["fdb/flush", "counters"].as_slice(),
            ),
            CommandId::FdbFlush => (
                Group::State,
                "Frames to forgotten addresses are flooded until they are learnt again.",
                ["fdb/flush lab", "fdb/flush", "fdb/show lab -- fdb/flush lab"],
                ["fdb/show"].as_slice(),
            ),
            CommandId::Leases => (
                Group::Gateways,
                "States are bound, offered, idle (ended) and conflict (in use without a lease).",
                ["leases", "leases out", "-f json leases out"],
                ["flows", "show"].as_slice(),
            ),
            CommandId::Forward => (
                Group::Gateways,
                "A rule is NAME,PROTOCOL,HOST-ADDRESS,HOST-PORT,GUEST-ADDRESS,GUEST-PORT; a name \
                 and addresses may be empty. The list says for each whether it is listened on.",
                [
                    "forward add out web,tcp,127.0.0.1,8080,10.0.2.15,80",
                    "forward list",
                    "forward del out ssh",
                ],
                ["flows", "leases", "set"].as_slice(),
            ),
            CommandId::Flows => (
                Group::Gateways,
                "Prints protocol, ends, state, bytes, and seconds since the last packet.",
                ["flows", "flows out", "-f json flows out"],
                ["forward", "counters"].as_slice(),
            ),
            CommandId::Counters => (
                Group::State,
                "For one port, each reason for which its frames were dropped comes with what to \
                 do about it. --why prints that for all ports: a line for each reason, the most \
                 frequent of a port first.",
                ["counters", "counters vm1", "counters --why"],
                ["show", "fdb/show", "flows"].as_slice(),
            ),
            CommandId::Reload => (
                Group::Daemon,
                "As SIGHUP. A faulty file changes nothing; each fault is printed with its line. \
                 Ports that do not run are tried again.",
                ["reload", "-t 60 reload", "--oneline reload"],
                ["show", "set"].as_slice(),
            ),
            CommandId::Upgrade => (
                Group::Daemon,
                "As SIGUSR2. The program is started again from its file, with the same options, and \
                 builds everything beside the tramad that runs. Guests, devices and connections \
                 stay; frames wait for some milliseconds. If it does not take over within 10 \
                 seconds, the old one goes on, and the reason is printed.",
                ["upgrade", "-t 60 upgrade", "--oneline upgrade"],
                ["reload", "version"].as_slice(),
            ),
            CommandId::BrToVlan | CommandId::BrToParent => (
                Group::Compatibility,
                "A fake bridge of Open vSwitch is a VLAN of another bridge. In trama, ports have a \
                 tag.",
                ["br-to-vlan lab", "br-to-parent lab", "add-port lab vm3 tag=20"],
                ["list-br", "add-port"].as_slice(),
            ),
            CommandId::BrSetExternalId | CommandId::BrGetExternalId => (
                Group::Compatibility,
                "external_ids are notes of management software; trama does not read them. Without \
                 a value, the key is removed.",
                [
                    "br-set-external-id lab owner ann",
                    "br-get-external-id lab owner",
                    "br-get-external-id lab",
                ],
                ["set", "get"].as_slice(),
            ),
            CommandId::GetController | CommandId::DelController | CommandId::SetController => (
                Group::Compatibility,
                "Frames are forwarded by VLAN and MAC address, never by a controller.",
                ["get-controller lab", "del-controller lab", "fdb/show lab"],
                ["show", "fdb/show"].as_slice(),
            ),
            CommandId::GetManager
            | CommandId::DelManager
            | CommandId::SetManager
            | CommandId::GetSsl
            | CommandId::DelSsl
            | CommandId::SetSsl => (
                Group::Compatibility,
                "The daemon is steered by its control socket, which is local.",
                ["get-manager", "get-ssl", "del-manager"],
                ["show", "reload"].as_slice(),
            ),
            CommandId::GetFailMode | CommandId::SetFailMode | CommandId::DelFailMode => (
                Group::Compatibility,
                "It says what a bridge of Open vSwitch does without its controller. A network has \
                 none: it is kept for the software that sets it.",
                ["get-fail-mode lab", "set-fail-mode lab secure", "del-fail-mode lab"],
                ["get-controller", "set"].as_slice(),
            ),
            CommandId::AddBond | CommandId::AddBondIface | CommandId::DelBondIface => (
                Group::Compatibility,
                "Bond the host's interfaces in the kernel, and make the bond the uplink of a \
                 bridged network.",
                [
                    "add-br lan -- set Bridge lan mode=bridged uplink=bond0",
                    "--if-exists del-bond-iface eth1",
                    "list-ifaces lab",
                ],
                ["add-br", "add-port", "list-ifaces"].as_slice(),
            ),
            CommandId::EmerReset => (
                Group::Compatibility,
                "Of other_config of networks, hwaddr stays.",
                ["emer-reset", "--dry-run emer-reset", "get Bridge lab other_config"],
                ["del-fail-mode", "clear"].as_slice(),
            ),
            CommandId::Init | CommandId::Comment => (
                Group::Compatibility,
                "Takes its place in a transaction, and does nothing.",
                ["init", "comment made by a script -- list-br", "init -- list-br"],
                ["reload", "set"].as_slice(),
            ),
            CommandId::Version => (
                Group::Daemon,
                "The client's own version is printed by --version.",
                ["version", "-t 1 version", "--oneline version"],
                ["show"].as_slice(),
            ),
        };
        Help { group, text, examples, see_also }
    }
}
