//! The words of a command: options, then its name, then its arguments.

use super::COMMANDS;

/// A command as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words<'a> {
    /// Its options with their values. Whether it takes them is not checked.
    pub options: Vec<(&'a str, Option<&'a str>)>,
    /// Its name.
    pub name: &'a str,
    /// What follows the name.
    pub arguments: &'a [String],
}

/// Why words are no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordsError<'a> {
    /// There is no name.
    NoName,
    /// An option has no value although it needs one.
    NoValue(&'a str),
}

impl<'a> Words<'a> {
    /// Finds the name: an option may take the next word as its value.
    ///
    /// # Errors
    /// There is no name, or an option lacks its value.
    pub fn of(words: &'a [String]) -> Result<Words<'a>, WordsError<'a>> {
        let mut options = Vec::new();
        let mut rest = words.iter();
        loop {
            let word = rest.next().ok_or(WordsError::NoName)?;
            if !word.starts_with("--") {
                return Ok(Words { options, name: word, arguments: rest.as_slice() });
            }
            options.push(match word.split_once('=') {
                Some((option, value)) => (option, Some(value)),
                None if takes_value(word) => {
                    let value = rest.next().ok_or(WordsError::NoValue(word))?;
                    (word, Some(value))
                }
                None => (word, None),
            });
        }
    }
}

/// Whether some command has this option with a value (`--columns=`).
fn takes_value(option: &str) -> bool {
    let mut options = COMMANDS.iter().flat_map(|command| command.options);
    options.any(|known| known.name == option && known.value.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_follows_options_and_their_values() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let line = words("--if-exists --columns name list Port --x");
        let read = Words::of(&line).unwrap();
        assert_eq!(read.options, [("--if-exists", None), ("--columns", Some("name"))]);
        assert_eq!((read.name, read.arguments), ("list", &line[4..]));
        assert_eq!(Words::of(&words("--columns=a --may-exist")), Err(WordsError::NoName));
        assert_eq!(Words::of(&words("--columns")), Err(WordsError::NoValue("--columns")));
    }
}
