//! The documented requests are those that are answered.

use trama_web::{ROUTES, Route};

#[test]
fn the_page_of_the_docs_has_all_requests() {
    let row = |Route { method, path, answer, session, .. }: &Route| {
        let session = if *session { "yes" } else { "no" };
        format!("| `{method} {path}` | {session} | {answer} |")
    };
    let page = include_str!("../../docs/web.md");
    let documented: Vec<&str> = page.lines().filter(|it| it.starts_with("| `")).collect();
    assert_eq!(documented, ROUTES.iter().map(row).collect::<Vec<_>>());
}
