//! How names and paths are written where some characters have a meaning.

/// An identifier of QEMU, which has letters, digits and `-._`. Any other character of a port's name
/// is written as `_` and its code.
pub(super) fn identifier(name: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    let written = name.chars().map(|letter| match is_plain(letter) {
        true => letter.to_string(),
        false => format!("_{:02x}", u32::from(letter)),
    });
    written.collect()
}

/// A value among QEMU's options: a comma ends a value, and two of them stand for one.
pub(super) fn commas(path: &str) -> String {
    path.replace(',', ",,")
}

/// A value among options of Cloud Hypervisor and crosvm, which end at a comma outside quotes.
///
/// # Errors
/// There is a quote or backslash in it, which they read differently.
pub(super) fn option(path: &str) -> Result<String, String> {
    if path.contains(['"', '\\']) {
        return Err(format!(
            "{path} cannot be given to this VMM, for its quotes or backslashes; give the port \
             another path"
        ));
    }
    let is_plain = is_plain(path) && !path.contains(',');
    Ok(if is_plain { path.to_owned() } else { format!("\"{path}\"") })
}

/// A word of a shell, in apostrophes if it needs them.
pub(super) fn shell(word: &str) -> String {
    match is_plain(word) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// An attribute of XML in apostrophes.
pub(super) fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

/// A string of YAML, which takes those of JSON.
pub(super) fn yaml(text: &str) -> String {
    match is_plain(text) {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

/// Whether no shell, and YAML in no place of a path, reads anything into these characters.
fn is_plain(text: &str) -> bool {
    text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./,=@+:".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_is_written_so_that_it_has_none() {
        assert_eq!(identifier("a.b:c@d+e_f-1"), "a.b_3ac_40d_2be_f-1");
        assert_eq!(commas("/a,b"), "/a,,b");
        assert_eq!(option("/run/a b,c.sock").unwrap(), "\"/run/a b,c.sock\"");
        assert_eq!(option("/run/a.sock").unwrap(), "/run/a.sock");
        assert!(option("/run/a\"b").unwrap_err().ends_with("give the port another path"));
        assert_eq!(shell("path=/run/a,b.sock"), "path=/run/a,b.sock");
        assert_eq!(shell("/run/$HOME #'x"), r"'/run/$HOME #'\''x'");
        assert_eq!(xml("/a<b&'c"), "/a&lt;b&amp;&apos;c");
        assert_eq!(yaml("/run/a: b"), "\"/run/a: b\"");
    }
}
