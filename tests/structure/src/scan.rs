//! One source file as a list of modules, names, imports and paths.
//!
//! Works on tokens, not on a syntax tree: comments and strings are out of the way, and the
//! arguments of macros are read like all other code.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::vec::IntoIter;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A path of a `use` line or of code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Path {
    /// Its segments, such as `crate`, `ports`, `Device`.
    pub segments: Vec<String>,
    /// The line where it stands, from 1.
    pub line: usize,
}

/// One name that a `use` line brings in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Import {
    /// Where the name comes from.
    pub path: Path,
    /// What it is called here; `None` for a glob.
    pub name: Option<String>,
    /// Whether it passes the name on: `pub use`.
    pub is_public: bool,
}

/// A module as far as its own text tells.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// Modules in braces.
    pub inline: Vec<(String, Scanned)>,
    /// Modules in files of their own, with the path of a `#[path]` attribute.
    pub files: Vec<(String, Option<String>)>,
    /// Names of the items defined here.
    pub items: Vec<String>,
    /// What `use` lines bring in.
    pub imports: Vec<Import>,
    /// Paths of two segments and more in the code.
    pub paths: Vec<Path>,
    /// First words of paths and other words of the code, those of `use` lines aside.
    pub words: BTreeSet<String>,
}

/// Keywords that may stand right before the name of an item.
const ITEMS: [&str; 9] =
    ["struct", "enum", "union", "trait", "type", "fn", "const", "static", "macro_rules"];

type Tokens = Peekable<IntoIter<TokenTree>>;

/// Reads the text of a file.
///
/// # Errors
/// The text is not Rust: where and why.
pub fn scan(text: &str) -> Result<Scanned, String> {
    let stream: TokenStream = text.parse().map_err(|error| format!("not Rust: {error}"))?;
    let mut module = Scanned::default();
    scan_stream(stream, &mut module);
    Ok(module)
}

fn tokens(stream: TokenStream) -> Tokens {
    stream.into_iter().collect::<Vec<_>>().into_iter().peekable()
}

fn scan_stream(stream: TokenStream, module: &mut Scanned) {
    let mut rest = tokens(stream);
    let mut path_attribute = None;
    let mut is_public = false;
    while let Some(token) = rest.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => match attribute(&mut rest) {
                Attribute::OnlyTests => skip_item(&mut rest),
                Attribute::Path(path) => path_attribute = Some(path),
                Attribute::Other => {}
            },
            TokenTree::Group(group) => scan_stream(group.stream(), module),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            TokenTree::Ident(ident) => match plain(&ident).as_str() {
                "pub" => {
                    // `pub(in crate::engine)` imports nothing.
                    rest.next_if(|token| is_group(token, Delimiter::Parenthesis));
                    is_public = true;
                    continue;
                }
                "mod" => scan_mod(&mut rest, path_attribute.take(), module),
                "use" if !starts_with(&mut rest, '<') => scan_use(&mut rest, is_public, module),
                word if ITEMS.contains(&word) => scan_name(&mut rest, module),
                word => scan_path(word.to_owned(), ident.span().start().line, &mut rest, module),
            },
        }
        is_public = false;
    }
}

enum Attribute {
    OnlyTests,
    Path(String),
    Other,
}

/// Reads an attribute behind its `#`.
fn attribute(rest: &mut Tokens) -> Attribute {
    rest.next_if(|token| is_punct(token, '!'));
    let Some(TokenTree::Group(group)) = rest.next_if(|token| is_group(token, Delimiter::Bracket))
    else {
        return Attribute::Other;
    };
    let text = group.stream().to_string();
    let mut inside = tokens(group.stream());
    match inside.next() {
        Some(TokenTree::Ident(ident)) if ident == "cfg" => {
            let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            let is_test = words.contains(&"test") && !words.contains(&"not");
            if is_test { Attribute::OnlyTests } else { Attribute::Other }
        }
        Some(TokenTree::Ident(ident)) if ident == "path" => match inside.nth(1) {
            Some(TokenTree::Literal(path)) => {
                Attribute::Path(path.to_string().trim_matches('"').to_owned())
            }
            _ => Attribute::Other,
        },
        _ => Attribute::Other,
    }
}

/// Goes past the item that a `#[cfg(test)]` stands before: to its braces or its semicolon, for a
/// field to its comma.
fn skip_item(rest: &mut Tokens) {
    let mut is_use = false;
    let mut is_field = None;
    while let Some(token) = rest.next() {
        match &token {
            TokenTree::Punct(punct) if punct.as_char() == ';' => return,
            TokenTree::Punct(punct) if punct.as_char() == ',' && is_field == Some(true) => return,
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                rest.next_if(|token| is_group(token, Delimiter::Bracket));
            }
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && !is_use => return,
            TokenTree::Ident(ident) if ident == "pub" => {
                rest.next_if(|token| is_group(token, Delimiter::Parenthesis));
            }
            TokenTree::Ident(ident) => {
                is_use |= ident == "use";
                is_field.get_or_insert_with(|| starts_with(rest, ':'));
            }
            _ => {}
        }
    }
}

fn scan_mod(rest: &mut Tokens, path: Option<String>, module: &mut Scanned) {
    let Some(TokenTree::Ident(name)) = rest.next() else { return };
    match rest.next() {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
            let mut inner = Scanned::default();
            scan_stream(group.stream(), &mut inner);
            module.inline.push((plain(&name), inner));
        }
        _ => module.files.push((plain(&name), path)),
    }
}

fn scan_use(rest: &mut Tokens, is_public: bool, module: &mut Scanned) {
    let tree: Vec<_> = std::iter::from_fn(|| rest.next_if(|token| !is_punct(token, ';'))).collect();
    scan_tree(tree.into_iter().peekable(), &[], is_public, module);
}

/// Reads the comma-separated trees of a `use` line or of a group in it, behind `prefix`.
fn scan_tree(mut rest: Tokens, prefix: &[String], is_public: bool, module: &mut Scanned) {
    let mut segments = prefix.to_vec();
    let mut line = 0;
    let mut name = None;
    let mut is_open = false;
    let mut finish = |segments: &mut Vec<String>, name: Option<String>, line| {
        // `use a::{self}` is `use a`.
        let is_self = segments.len() > 1 && segments.last().is_some_and(|last| last == "self");
        segments.truncate(segments.len() - usize::from(is_self));
        let segments = std::mem::replace(segments, prefix.to_vec());
        module.imports.push(Import { path: Path { segments, line }, name, is_public });
    };
    let mut groups = Vec::new();
    while let Some(token) = rest.next() {
        match token {
            TokenTree::Ident(ident) if ident == "as" => {
                name = rest.next().map(|alias| alias.to_string());
            }
            TokenTree::Ident(ident) => {
                line = ident.span().start().line;
                segments.push(plain(&ident));
                is_open = true;
            }
            TokenTree::Punct(punct) if punct.as_char() == '*' => {
                finish(&mut segments, None, punct.span().start().line);
                is_open = false;
            }
            TokenTree::Punct(punct) if punct.as_char() == ',' && is_open => {
                let last = name.take().or_else(|| own_name(&segments));
                finish(&mut segments, last, line);
                is_open = false;
            }
            TokenTree::Group(group) => {
                groups.push((std::mem::replace(&mut segments, prefix.to_vec()), group));
                is_open = false;
            }
            _ => {}
        }
    }
    if is_open {
        let last = name.or_else(|| own_name(&segments));
        finish(&mut segments, last, line);
    }
    for (prefix, group) in groups {
        scan_tree(tokens(Group::stream(&group)), &prefix, is_public, module);
    }
}

/// What a path without `as` is called: its last segment, `self` aside.
fn own_name(segments: &[String]) -> Option<String> {
    segments.iter().rev().find(|segment| *segment != "self").cloned()
}

/// Notes the name of an item, which the caller then passes by as a path of one segment.
fn scan_name(rest: &mut Tokens, module: &mut Scanned) {
    rest.next_if(|token| is_punct(token, '!'));
    if let Some(TokenTree::Ident(name)) = rest.peek() {
        module.items.push(plain(name));
    }
}

/// Reads on behind the first segment of what may be a path.
fn scan_path(first: String, line: usize, rest: &mut Tokens, module: &mut Scanned) {
    module.words.insert(first.clone());
    let mut segments = vec![first];
    while starts_with(rest, ':') {
        rest.next();
        // A single colon ends it: `name: type`.
        if rest.next_if(|token| is_punct(token, ':')).is_none() {
            break;
        }
        match rest.next_if(|token| matches!(token, TokenTree::Ident(_))) {
            Some(TokenTree::Ident(ident)) => segments.push(plain(&ident)),
            _ => break,
        }
    }
    if segments.len() > 1 {
        module.paths.push(Path { segments, line });
    }
}

fn plain(ident: &proc_macro2::Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map(str::to_owned).unwrap_or(text)
}

fn is_punct(token: &TokenTree, character: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == character)
}

fn is_group(token: &TokenTree, delimiter: Delimiter) -> bool {
    matches!(token, TokenTree::Group(group) if group.delimiter() == delimiter)
}

fn starts_with(rest: &mut Tokens, character: char) -> bool {
    rest.peek().is_some_and(|token| is_punct(token, character))
}
