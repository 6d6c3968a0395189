//! The places of ports on the line of their network.
//!
//! A port keeps its place while it is there, so that nothing moves in the picture. A removed port
//! leaves a hole, which a new one takes: there are never more places than the network had ports at
//! one time.

use std::collections::{HashMap, HashSet};

/// The places of each network's ports; of `None`, those on no network.
#[derive(Debug, Default)]
pub(crate) struct Slots(HashMap<Option<String>, Line>);

#[derive(Debug, Default)]
struct Line {
    places: Vec<Option<String>>,
    of: HashMap<String, usize>,
}

impl Slots {
    /// Gives places to the ports that there are now, each with its network; returns them in this
    /// order.
    pub(crate) fn give<'a>(
        &mut self,
        ports: impl Iterator<Item = (Option<&'a str>, &'a str)> + Clone,
    ) -> Vec<usize> {
        let present: HashSet<_> = ports.clone().collect();
        for (network, line) in &mut self.0 {
            line.keep(|name| present.contains(&(network.as_deref(), name)));
        }
        self.0.retain(|_, line| !line.of.is_empty());
        ports.map(|(network, name)| self.place(network, name)).collect()
    }

    fn place(&mut self, network: Option<&str>, name: &str) -> usize {
        self.0.entry(network.map(str::to_owned)).or_default().place(name)
    }
}

impl Line {
    fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        for place in &mut self.places {
            if let Some(gone) = place.take_if(|name| !is_there(name)) {
                self.of.remove(&gone);
            }
        }
    }

    fn place(&mut self, name: &str) -> usize {
        if let Some(place) = self.of.get(name) {
            return *place;
        }
        let has_hole = self.of.len() < self.places.len();
        let hole = has_hole.then(|| self.places.iter().position(Option::is_none)).flatten();
        let place = hole.unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(name.to_owned());
        self.of.insert(name.to_owned(), place);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn give(slots: &mut Slots, names: &[&str]) -> Vec<usize> {
        slots.give(names.iter().map(|name| (Some("lab"), *name)))
    }

    #[test]
    fn a_port_keeps_its_place_whatever_the_order() {
        let mut slots = Slots::default();
        assert_eq!(give(&mut slots, &["a", "b", "c"]), [0, 1, 2]);
        assert_eq!(give(&mut slots, &["c", "a", "b"]), [2, 0, 1]);
    }

    #[test]
    fn a_new_port_takes_the_first_hole() {
        let mut slots = Slots::default();
        give(&mut slots, &["a", "b", "c", "d"]);
        assert_eq!(give(&mut slots, &["b", "d"]), [1, 3]);
        assert_eq!(give(&mut slots, &["b", "d", "e", "f", "g"]), [1, 3, 0, 2, 4]);
    }

    #[test]
    fn networks_have_lines_of_their_own_and_a_port_that_moves_leaves_a_hole() {
        let mut slots = Slots::default();
        let ports = [(Some("x"), "a"), (Some("x"), "b"), (None, "c")];
        assert_eq!(slots.give(ports.into_iter()), [0, 1, 0]);
        let ports = [(Some("y"), "a"), (Some("x"), "b"), (Some("x"), "c")];
        assert_eq!(slots.give(ports.into_iter()), [0, 1, 0]);
    }

    #[test]
    fn ports_that_come_and_go_do_not_make_the_line_longer() {
        let mut slots = Slots::default();
        for round in 0..1000 {
            let name = format!("container-{round}");
            assert_eq!(give(&mut slots, &["vm1", &name]), [0, 1]);
        }
        assert_eq!(give(&mut slots, &[]), [0; 0]);
        assert!(slots.0.is_empty());
    }
}
