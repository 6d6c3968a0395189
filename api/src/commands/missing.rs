//! Commands of `ovs-vsctl` for what trama does not have at all.

const NO_ZONES: &str = "there are no zones of connection tracking: a gateway times its flows out by \
                        itself, and flows prints them";
const NO_AUTO_ATTACH: &str = "there is no Auto Attach; set tag and trunks of Port";

/// Their names, and why each is refused.
const MISSING: [(&str, &str); 10] = [
    ("add-aa-mapping", NO_AUTO_ATTACH),
    ("add-zone-tp", NO_ZONES),
    ("del-aa-mapping", NO_AUTO_ATTACH),
    ("del-zone-limit", NO_ZONES),
    ("del-zone-tp", NO_ZONES),
    ("get-aa-mapping", NO_AUTO_ATTACH),
    (
        "list-dp-cap",
        "there is one data plane, without capabilities that differ; get Open_vSwitch . iface_types \
         prints the types of ports, and doctor says what the host lacks",
    ),
    ("list-zone-limits", NO_ZONES),
    ("list-zone-tp", NO_ZONES),
    ("set-zone-limit", NO_ZONES),
];

/// Why trama does not have the command of this name, if Open vSwitch has it.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    MISSING.iter().find(|(missing, _)| *missing == name).map(|(_, why)| *why)
}
