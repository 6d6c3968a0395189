//! The forwards that a change adds, which must listen before it counts as done.

use crate::config::model::rule::Rule;
use crate::config::model::{Config, Network};
use crate::plan::Step;

/// The forwards that a change has given to a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// The network as it runs.
    pub network: String,
    /// The labels of the rules.
    pub labels: Vec<String>,
}

/// Returns the forwards that a change from `before` has added, by its steps.
pub(crate) fn added(before: &Config, steps: &[Step]) -> Vec<Added> {
    let after = steps.iter().filter_map(|step| match step {
        Step::AddNetwork { network } => Some(network),
        Step::SetNetwork { network, keys } if keys.contains(&"forward") => Some(network),
        _ => None,
    });
    let mut after = after.filter(|network| !network.forward.is_empty()).peekable();
    if after.peek().is_none() {
        return Vec::new();
    }
    let before = before.expanded();
    let of = |network: &Network| {
        let known = before.network(&network.name).map_or(&[][..], |it| &it.forward);
        let new = network.forward.iter().filter(|rule| !known.contains(rule));
        Added { network: network.name.clone(), labels: new.map(Rule::label).collect() }
    };
    after.map(of).filter(|added| !added.labels.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::plan::plan;

    #[test]
    fn what_a_change_adds_is_found() {
        let config = |forwards: &str, of_port: &str| {
            let text = format!(
                "[[network]]\nname = \"home\"\nmode = \"nat-network\"\nsubnet = \"10.7.0.0/24\"\n\
                 forward = [{forwards}]\n[[network]]\nname = \"solo\"\nmode = \"nat\"\n\
                 [[port]]\nname = \"p\"\nnetwork = \"solo\"\ntype = \"tap\"\nforward = [{of_port}]\n"
            );
            parse(&text, "").unwrap()
        };
        let (a, b) = (r#""a,tcp,,80,10.7.0.9,80""#, r#""b,tcp,,81,10.7.0.9,80""#);
        let (none, one, both) = (config("", ""), config(a, ""), config(&format!("{a}, {b}"), ""));
        let found = |from: &Config, to: &Config| {
            let found = added(from, &plan(from, to)).into_iter();
            found.map(|it| format!("{}: {}", it.network, it.labels.join(" "))).collect::<Vec<_>>()
        };
        assert_eq!(found(&none, &one), ["home: a"]);
        assert_eq!(found(&one, &both), ["home: b"]);
        assert_eq!(found(&both, &one), [""; 0]);
        assert_eq!(found(&none, &config("", r#""c,tcp,,82,,80""#)), ["solo/p: c"]);
        assert_eq!(found(&Config::default(), &one), ["home: a"]);
    }
}
