//! What every request must be before it is looked at, and what every answer says.
//!
//! A browser sends requests to loopback for any page that it shows. Three things keep those of
//! other sites out: the name that the request asks for (a foreign one means DNS rebinding), where
//! the browser says that it comes from (`Origin`, `Sec-Fetch-Site`), and a header that no form can
//! send.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::app::App;
use crate::refusal::{refuse, refuse_page};

/// Most bytes of a query.
const LONGEST_QUERY: usize = 4096;

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                   img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                   form-action 'none'; frame-ancestors 'none'";

/// Headers of all answers.
const HEADERS: &[(&str, &str)] = &[
    ("content-security-policy", CSP),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Refuses what does not come from the page, and completes answers.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let is_page = request.method() == Method::GET && request.uri().path() == "/";
    let mut answer = match check(&request, &app.hosts) {
        Ok(()) => next.run(request).await,
        Err((status, error)) if is_page => refuse_page(status, error),
        Err((status, error)) => refuse(status, error),
    };
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let no_store = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(no_store);
    answer
}

type Refused = (StatusCode, &'static str);

fn check(request: &Request, hosts: &[String]) -> Result<(), Refused> {
    let headers = request.headers();
    let host = host(request.uri(), headers).ok_or((
        StatusCode::BAD_REQUEST,
        "the request names no host, or several; use a browser or curl",
    ))?;
    if !is_own(&host, hosts) {
        return Err((
            StatusCode::FORBIDDEN,
            "this is not a name of the page: open it by an address of loopback, or add the name \
             to web-hosts in [daemon] of trama.toml",
        ));
    }
    if !is_same_origin(headers, &host) || is_cross_site(request) {
        return Err((
            StatusCode::FORBIDDEN,
            "the request comes from another site; open the page by the address that tramactl web \
             prints",
        ));
    }
    if request.uri().query().is_some_and(|query| query.len() > LONGEST_QUERY) {
        return Err((StatusCode::URI_TOO_LONG, "the query is longer than 4096 bytes; shorten it"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) && !is_of_page(headers) {
        return Err((
            StatusCode::FORBIDDEN,
            "the request lacks the header x-trama: 1 or the content-type application/json; send \
             both",
        ));
    }
    Ok(())
}

/// The host, with its port, that the request asks for.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let host: Authority = only(headers, header::HOST)?.parse().ok()?;
    // In a request to a proxy, the URI names it as well.
    let is_other = uri.authority().is_some_and(|other| *other != host);
    (!is_other && !host.as_str().contains('@')).then_some(host)
}

/// The value of a header that comes once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn is_own(host: &Authority, hosts: &[String]) -> bool {
    let name = host.host();
    let address = name.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(name);
    let is_loopback = address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    // A name may end with the root's dot.
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_named = |it: &str| it.eq_ignore_ascii_case(name);
    is_loopback || is_named("localhost") || hosts.iter().any(|it| is_named(it))
}

fn is_same_origin(headers: &HeaderMap, host: &Authority) -> bool {
    if !headers.contains_key(header::ORIGIN) {
        return true;
    }
    let Some(origin) = only(headers, header::ORIGIN) else { return false };
    let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host.as_str()))
}

/// Whether the browser says that the request comes from another site, or from another port of this
/// one: that may open the page, and nothing else.
fn is_cross_site(request: &Request) -> bool {
    match request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes) {
        Some(b"cross-site") => true,
        Some(b"same-site") => request.uri().path() != "/",
        _ => false,
    }
}

/// Whether a request that changes or asks something comes from a script: a form can send neither.
fn is_of_page(headers: &HeaderMap) -> bool {
    let kind = only(headers, header::CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_marked = only(headers, HeaderName::from_static("x-trama")) == Some("1");
    is_marked && kind.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn status(method: &str, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let hosts = ["lab.example.org".to_owned()];
        let checked = check(&request.body(Body::empty()).unwrap(), &hosts);
        checked.map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn hosts_are_loopback_or_named() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9478",
            "127.1.2.3:1",
            "[::1]",
            "[::1]:9478",
            "localhost",
            "LOCALHOST:80",
            "localhost.",
            "lab.example.org:443",
        ] {
            assert_eq!(status("GET", "/", &[("host", host)]), 200, "{host}");
        }
        for host in [
            "192.0.2.1",
            "example.org",
            "localhost.example.org",
            "127.0.0.1.nip.io",
            "[::2]",
            "0.0.0.0",
            "2130706433",
            "sub.lab.example.org",
            "localhost..",
        ] {
            assert_eq!(status("GET", "/", &[("host", host)]), 403, "{host}");
        }
        for host in ["", "a b", "user@localhost", "local host"] {
            assert_ne!(status("GET", "/", &[("host", host)]), 200, "{host}");
        }
        assert_eq!(status("GET", "/", &[]), 400);
        assert_eq!(status("GET", "/", &[("host", "localhost"), ("host", "evil")]), 400);
        assert_eq!(status("GET", "http://evil/", &[("host", "localhost")]), 400);
        assert_eq!(status("GET", "http://localhost/", &[("host", "localhost")]), 200);
    }

    #[test]
    fn origins_are_the_host_itself() {
        let host = ("host", "localhost:9478");
        for origin in ["http://localhost:9478", "https://localhost:9478"] {
            assert_eq!(status("GET", "/v1/state", &[host, ("origin", origin)]), 200, "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://localhost",
            "http://localhost:9479",
            "ftp://localhost:9478",
            "http://127.0.0.1:9478",
            "http://evil",
            "http://localhost:9478.evil",
        ] {
            assert_eq!(status("GET", "/v1/state", &[host, ("origin", origin)]), 403, "{origin}");
        }
    }

    #[test]
    fn sites_are_told_apart_by_what_the_browser_says() {
        let of =
            |path, site| status("GET", path, &[("host", "localhost"), ("sec-fetch-site", site)]);
        assert_eq!((of("/", "none"), of("/v1/state", "same-origin")), (200, 200));
        assert_eq!((of("/", "cross-site"), of("/v1/state", "cross-site")), (403, 403));
        assert_eq!((of("/", "same-site"), of("/v1/state", "same-site")), (200, 403));
    }

    #[test]
    fn forms_cannot_post() {
        let host = ("host", "localhost");
        let (mark, json) = (("x-trama", "1"), ("content-type", "application/json; charset=utf-8"));
        assert_eq!(status("POST", "/v1/explain", &[host, mark, json]), 200);
        for lacking in [
            &[host, json][..],
            &[host, mark],
            &[host, mark, ("content-type", "text/plain")],
            &[host, ("x-trama", "2"), json],
        ] {
            assert_eq!(status("POST", "/v1/explain", lacking), 403);
            assert_eq!(status("DELETE", "/v1/explain", lacking), 403);
        }
    }

    #[test]
    fn queries_end() {
        let path = format!("/v1/flows?network={}", "x".repeat(LONGEST_QUERY));
        assert_eq!(status("GET", &path, &[("host", "localhost")]), 414);
    }
}
