//! Commands, sent as one transaction.

use std::time::Duration;

use serde::de::DeserializeOwned;
use trama_api::transaction::{NOT_YET, Output, Request, Response, VERSION};

use crate::approve::approve_at;
use crate::exchange::{NoAnswer, connect, late, patiently, wait};
use crate::{Daemon, Failed};

/// Between two looks at the conditions of `wait-until`: for each, the daemon gathers the state of
/// all ports.
const PAUSE: Duration = Duration::from_millis(100);

impl Daemon {
    /// Has a transaction carried out. The cells of tables are read as `C`.
    ///
    /// # Errors
    /// There is no daemon, it does not answer in time, or it refuses.
    pub fn transact<C: DeserializeOwned>(&self, request: &Request) -> Result<Response<C>, Failed> {
        wait(self, self.until_it_holds(request), || match waits(request) {
            true => Failed::Refused {
                message: format!(
                    "the conditions of wait-until do not hold after {} s",
                    self.timeout.as_secs()
                ),
                exit: NOT_YET,
            },
            false => late(self),
        })
    }

    /// Has one command carried out; returns its output.
    ///
    /// # Errors
    /// As [`transact`](Daemon::transact).
    pub fn run<W: Into<String>>(
        &self,
        words: impl IntoIterator<Item = W>,
    ) -> Result<Output, Failed> {
        let commands = vec![words.into_iter().map(Into::into).collect()];
        let request = Request { version: VERSION, commands, dry_run: false, no_save: false };
        let results = self.transact(&request)?.results;
        Ok(results.into_iter().next().unwrap_or_else(Output::none))
    }

    /// Sends the commands, again and again while a `wait-until` among them does not hold.
    async fn until_it_holds<C: DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<Response<C>, Failed> {
        loop {
            match self.once(request).await {
                Err(Failed::Refused { exit: NOT_YET, .. }) => tokio::time::sleep(PAUSE).await,
                answer => return answer,
            }
        }
    }

    /// Sends the commands. After an upgrade, the daemon that has taken over answers.
    async fn once<C: DeserializeOwned>(&self, request: &Request) -> Result<Response<C>, Failed> {
        let is_upgrade = matches!(request.commands.as_slice(), [words] if words == &["upgrade"]);
        let mut answer = self.ask(request).await;
        if is_upgrade && matches!(answer, Err(NoAnswer::Lost(_))) {
            let commands = vec![vec!["version".to_owned()]];
            answer = self.ask(&Request { commands, ..request.clone() }).await;
        }
        answer.map_err(NoAnswer::reported)
    }

    async fn ask<C: DeserializeOwned>(&self, request: &Request) -> Result<Response<C>, NoAnswer> {
        patiently(async || {
            let connection = connect(self).await?;
            let words = named(&request.commands);
            if !words.is_empty() {
                // Users other than root cannot, and have to do without.
                let _ = approve_at(connection.socket, &words);
            }
            connection.post("transaction", request, None).await
        })
        .await
    }
}

/// Whether one of the commands is `wait-until`.
fn waits(request: &Request) -> bool {
    request.commands.iter().filter_map(|words| name(words)).any(|name| name == "wait-until")
}

/// The words of the commands that give something a name or a setting. Who looks at a port, or
/// removes it, does not approve what others have called it.
fn named(commands: &[Vec<String>]) -> Vec<String> {
    const NAMING: [&str; 5] = ["add-br", "add-port", "add", "create", "set"];
    let names = |words: &&Vec<String>| name(words).is_some_and(|name| NAMING.contains(&name));
    commands.iter().filter(names).flatten().cloned().collect()
}

/// The name of a command, after its options.
fn name(words: &[String]) -> Option<&str> {
    words.iter().map(String::as_str).find(|word| !word.starts_with("--"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_commands_that_name_something_are_approved() {
        let commands = |text: &str| -> Vec<Vec<String>> {
            let words = |command: &str| command.split_whitespace().map(str::to_owned).collect();
            text.split(" -- ").map(words).collect()
        };
        assert_eq!(
            named(&commands("del-port eth0 -- get Port eth1 tag -- list Port eth2")).len(),
            0
        );
        let words = named(&commands("--may-exist add-port lab p -- show -- set Port p tag=3"));
        assert_eq!(words.join(" "), "--may-exist add-port lab p set Port p tag=3");
    }
}
