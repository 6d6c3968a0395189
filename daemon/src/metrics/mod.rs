//! The metrics in the Prometheus text format.
//!
//! A scrape reads the counters that the workers keep anyway, with relaxed loads, and the control
//! thread makes the text. Names are part of the contract with users. A port's counters start at
//! zero when its device is made again, which Prometheus treats as a counter reset.
//!
//! A series whose value is zero and says nothing, as that of a reason for which no frame was
//! dropped, is left out: at a thousand ports, that is most of them.

mod captures;
mod events;
mod exports;
mod gateways;
mod networks;
mod ports;

#[cfg(test)]
mod tests;

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, IntCounterVec, IntGaugeVec, Opts, Result, TextEncoder};

use crate::config::model::Config;
use crate::confinement;
use crate::state::Daemon;
use crate::status::Status;

/// Returns the current metrics in the Prometheus text format.
pub fn render(daemon: &Daemon) -> String {
    let mut families = Families::default();
    let filled = families
        .fill(&daemon.status(), &daemon.config())
        .and_then(|()| captures::add(&mut families, daemon.captures.totals()))
        .and_then(|()| exports::add(&mut families, &daemon.exports))
        .and_then(|()| events::add(&mut families, daemon.events.totals()));
    // What Prometheus's clients have of their processes: processor time, memory, descriptors. What
    // the process may not read of itself is left out.
    families.add(&ProcessCollector::for_self());
    let text = filled.and_then(|()| families.text());
    text.unwrap_or_else(|error| {
        tracing::error!("metrics: {error}");
        String::new()
    })
}

/// The metric families of one scrape.
#[derive(Default)]
struct Families(Vec<MetricFamily>);

impl Families {
    fn fill(&mut self, status: &Status, config: &Config) -> Result<()> {
        ports::add(self, status, config)?;
        networks::add(self, status)?;
        gateways::add(self, status)?;
        self.add_sandbox()
    }

    /// Adds a counter, by the values of its labels.
    fn counts<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = ([&'a str; N], u64)>,
    ) -> Result<()> {
        let family = IntCounterVec::new(Opts::new(name, help), &labels)?;
        for (values, count) in rows {
            family.with_label_values(&values).inc_by(count);
        }
        self.add(&family);
        Ok(())
    }

    /// Adds a gauge, by the values of its labels.
    fn gauges<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = ([&'a str; N], u64)>,
    ) -> Result<()> {
        let family = IntGaugeVec::new(Opts::new(name, help), &labels)?;
        for (values, value) in rows {
            family.with_label_values(&values).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.add(&family);
        Ok(())
    }

    /// Adds a counter of seconds, by the values of its labels.
    fn seconds<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = ([&'a str; N], f64)>,
    ) -> Result<()> {
        let family = CounterVec::new(Opts::new(name, help), &labels)?;
        for (values, seconds) in rows {
            family.with_label_values(&values).inc_by(seconds);
        }
        self.add(&family);
        Ok(())
    }

    /// Adds a family, unless it has no series.
    fn add(&mut self, family: &impl Collector) {
        let collected = family.collect().into_iter();
        self.0.extend(collected.filter(|family| !family.get_metric().is_empty()));
    }

    /// Adds what restricts the processes, and what does not although it should.
    fn add_sandbox(&mut self) -> Result<()> {
        let missing = confinement::missing();
        self.gauges(
            "trama_sandbox_missing",
            "1 for each part of the sandbox that is not in force; docs/security.md has remedies.",
            ["part"],
            missing.iter().map(|part| ([part.as_str()], 1)),
        )?;
        self.gauges(
            "trama_sandbox_info",
            "What restricts tramad, in words.",
            ["in_force"],
            confinement::in_force().map(|text| ([text], 1)),
        )
    }

    fn text(&self) -> Result<String> {
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&self.0, &mut text)?;
        Ok(text)
    }
}
