//! The table as lines of text.

use super::options::Sort;
use super::rates::{PortRates, Rate, Rates};

/// Headings; those after the third stand to the right, but for the reason.
const HEADINGS: [&str; 11] = [
    "port", "network", "link", "rx Mb/s", "tx Mb/s", "rx kpps", "tx kpps", "drops/s", "reason",
    "kicks/s", "calls/s",
];
/// Columns of words.
const WORDS: [usize; 4] = [0, 1, 2, 8];

/// What is shown of the rates.
pub(super) struct Table {
    pub heading: String,
    pub rows: Vec<String>,
    /// Workers and gateways.
    pub last: String,
}

impl Table {
    /// Makes the table, with its rows in an order.
    pub(super) fn of(rates: &Rates, sort: Sort) -> Table {
        let mut ports = rates.ports();
        ports.sort_by(|a, b| {
            key(b, sort).total_cmp(&key(a, sort)).then_with(|| a.port.name.cmp(&b.port.name))
        });
        let rows: Vec<[String; 11]> = ports.iter().map(cells).collect();
        let widths: [usize; 11] = std::array::from_fn(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([HEADINGS[column].len()]).max().unwrap_or(0)
        });
        let heading = line(&HEADINGS.map(str::to_owned), &widths);
        Table {
            heading,
            rows: rows.iter().map(|row| line(row, &widths)).collect(),
            last: last(rates),
        }
    }
}

/// The number that rows are sorted by.
fn key(row: &PortRates<'_>, sort: Sort) -> f64 {
    let Some(rate) = &row.rates else { return 0.0 };
    match sort {
        Sort::Rx => rate.rx_bits,
        Sort::Tx => rate.tx_bits,
        Sort::Drops => rate.drops,
        Sort::Name => 0.0,
    }
}

fn cells(row: &PortRates<'_>) -> [String; 11] {
    let number = |number: fn(&Rate<'_>) -> f64, digits: usize| match &row.rates {
        Some(rate) => format!("{:.digits$}", number(rate)),
        None => "-".to_owned(),
    };
    let reason = row.rates.as_ref().and_then(|rate| rate.reason);
    [
        row.port.name.clone(),
        row.port.network.clone().unwrap_or_default(),
        if row.port.link { "up" } else { "down" }.to_owned(),
        number(|rate| rate.rx_bits / 1e6, 2),
        number(|rate| rate.tx_bits / 1e6, 2),
        number(|rate| rate.rx_frames / 1e3, 2),
        number(|rate| rate.tx_frames / 1e3, 2),
        number(|rate| rate.drops, 0),
        reason.unwrap_or_default().to_owned(),
        number(|rate| rate.kicks, 0),
        number(|rate| rate.calls, 0),
    ]
}

fn line(cells: &[String; 11], widths: &[usize; 11]) -> String {
    let padded = cells.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
        if WORDS.contains(&column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    });
    padded.collect::<Vec<_>>().join("  ")
}

fn last(rates: &Rates) -> String {
    let busy = rates.busy().into_iter();
    let busy = busy.map(|busy| busy.map_or_else(|| " -".to_owned(), |busy| format!(" {busy:.0}%")));
    let mut text = format!("workers busy:{}", busy.collect::<String>());
    let flows: Vec<String> =
        rates.flows().iter().map(|(network, flows)| format!("{network} {flows}")).collect();
    if !flows.is_empty() {
        text.push_str(&format!("; flows: {}", flows.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use trama_api::top::{Numbers, Port};

    use super::*;

    fn port(name: &str, rx: u64, drops: u64) -> Port {
        let drops = vec![("runt".into(), drops)];
        Port {
            name: name.into(),
            network: Some("lab".into()),
            link: true,
            rx_frames: rx,
            rx_bytes: rx * 1250,
            drops,
            ..Port::default()
        }
    }

    fn rates() -> Rates {
        let at = |nanos, ports| Numbers {
            nanos,
            busy_nanos: vec![nanos / 2],
            flows: vec![("out".into(), 3)],
            ports,
            ..Numbers::default()
        };
        let before = vec![port("b", 0, 0), port("a", 0, 0), port("c", 0, 0)];
        let now = vec![port("b", 100, 0), port("a", 50, 7), port("c", 200, 0)];
        Rates::from(at(0, before)).then(at(1_000_000_000, now))
    }

    #[test]
    fn columns_are_aligned_and_the_last_line_has_the_rest() {
        let table = Table::of(&rates(), Sort::Name);
        let lines = [vec![table.heading], table.rows].concat();
        assert_eq!(
            lines,
            [
                "port  network  link  rx Mb/s  tx Mb/s  rx kpps  tx kpps  drops/s  reason  kicks/s  calls/s",
                "a     lab      up       0.50     0.00     0.05     0.00        7  runt          0        0",
                "b     lab      up       1.00     0.00     0.10     0.00        0                0        0",
                "c     lab      up       2.00     0.00     0.20     0.00        0                0        0",
            ]
        );
        assert_eq!(table.last, "workers busy: 50%; flows: out 3");
    }

    #[test]
    fn the_largest_stand_first() {
        let first = |sort| Table::of(&rates(), sort).rows[0].chars().next();
        assert_eq!([Sort::Rx, Sort::Drops, Sort::Tx].map(first), [Some('c'), Some('a'), Some('a')]);
    }
}
