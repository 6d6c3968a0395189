//! The socket on which dockerd finds the plug-in.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Plugin, Refusal};
use crate::MAX_INPUT;

/// What dockerd expects of answers.
const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// Why the plug-in cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("socket {path}: {error}; {remedy}")]
pub struct ListenError {
    path: PathBuf,
    error: io::Error,
    remedy: &'static str,
}

/// Listens on a Unix socket that only its user reaches, in place of one that a killed plug-in has
/// left. Makes the folder, which is dockerd's, if dockerd has not run yet.
///
/// # Errors
/// Another plug-in listens there, or the socket cannot be made.
pub fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    let failed = |remedy| move |error| ListenError { path: path.to_owned(), error, remedy };
    if UnixStream::connect(path).is_ok() {
        let error = io::ErrorKind::AddrInUse.into();
        return Err(failed("another plug-in listens there; stop it, or use --socket")(error));
    }
    let remedy = "run as root, or use --socket";
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed(remedy))?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let error = io::ErrorKind::AlreadyExists.into();
            return Err(failed("it is no socket; use another path")(error));
        }
        Ok(_) => fs::remove_file(path).map_err(failed(remedy))?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed(remedy))?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed(remedy))?;
    Ok(listener)
}

/// Answers dockerd until `shutdown` resolves and its requests are answered.
///
/// # Errors
/// The listener is not one for this runtime.
pub async fn serve(
    plugin: Plugin,
    listener: UnixListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let limit = DefaultBodyLimit::max(MAX_INPUT as usize);
    let router = Router::new().fallback(answer).layer(limit).with_state(Arc::new(plugin));
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn answer(
    State(plugin): State<Arc<Plugin>>,
    uri: Uri,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let path = uri.path().to_owned();
    let answered = match body {
        Ok(body) => {
            let path = path.clone();
            // It waits for the daemon.
            tokio::task::spawn_blocking(move || plugin.answer(&path, &body)).await
        }
        Err(rejection) => return refuse(&path, rejection.status(), rejection.body_text()),
    };
    match answered {
        Ok(Ok(value)) => reply(StatusCode::OK, &value),
        Ok(Err(Refusal::Unknown)) => {
            refuse(&path, StatusCode::NOT_FOUND, format!("there is no {path} in this plug-in"))
        }
        Ok(Err(Refusal::Malformed(why))) => refuse(&path, StatusCode::BAD_REQUEST, why),
        // dockerd shows its user the text of an answer of this status as it is.
        Ok(Err(Refusal::Failed(why))) => refuse(&path, StatusCode::OK, why),
        Err(error) => refuse(&path, StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Says why, to dockerd and in the log.
fn refuse(path: &str, status: StatusCode, why: String) -> Response {
    eprintln!("trama-docker: {path}: {why}");
    reply(status, &json!({"Err": why}))
}

fn reply(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_over_only_from_a_plug_in_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plugins/trama.sock");
        let first = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let said = listen(&path).unwrap_err().to_string();
        assert!(said.contains("another plug-in listens"), "{said}");
        drop(first);
        drop(listen(&path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "text").unwrap();
        let said = listen(&path).unwrap_err().to_string();
        assert!(said.contains("no socket"), "{said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }
}
