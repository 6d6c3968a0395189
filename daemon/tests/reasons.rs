//! `docs/troubleshooting.md` has each drop reason, in the words of the counters.
#![cfg(test)]

use std::path::Path;

/// A table of reasons, each with what happened and what to do.
fn table(reasons: impl Iterator<Item = (&'static str, &'static str)>) -> String {
    let row = |(name, text): (&str, &str)| {
        let (what, remedy) = text.rsplit_once(": ").expect("a remedy");
        format!("| `{name}` | {what} | {} |\n", remedy.trim_end_matches('.'))
    };
    format!(
        "| reason | what happened | what to do |\n|---|---|---|\n{}",
        reasons.map(row).collect::<String>()
    )
}

#[test]
fn the_page_has_each_reason_in_the_words_of_the_counters() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/troubleshooting.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let of_switch = trama_switch::DropReason::ALL.iter().map(|it| (it.name(), it.describe()));
    let of_gateway = trama_gateway::DropReason::all().map(|it| (it.name(), it.describe()));
    let of_dhcp = trama_dhcp::DropReason::ALL.iter().map(|it| (it.name(), it.describe()));
    let tables =
        [("switch", table(of_switch)), ("gateway", table(of_gateway)), ("dhcp", table(of_dhcp))];
    for (place, wanted) in tables {
        let mark = format!("<!-- reasons: {place} -->\n\n");
        let (_, found) = page.split_once(&mark).expect("the mark");
        let found: String = found
            .lines()
            .take_while(|line| line.starts_with('|'))
            .map(|line| line.to_owned() + "\n")
            .collect();
        assert!(found == wanted, "docs/troubleshooting.md must have, below {mark}{wanted}");
    }
}
