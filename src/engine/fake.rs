//! An engine for unit tests, behind a socket.

#![cfg(unix)]

use std::rc::Rc;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::Docker;
use super::endpoint::{ChosenBy, Endpoint};
use crate::model::event::Silent;

/// A client of an engine that answers a request, given as its method and path, with a status and a body.
pub(crate) async fn engine(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> (TempDir, Docker) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&answer)));
        }
    });
    let endpoint = Endpoint::new(&format!("unix://{}", path.display()), ChosenBy::Option);
    let docker = Docker::connect(endpoint, Rc::new(Silent)).await.unwrap();
    (folder, docker)
}

async fn serve(mut stream: UnixStream, answer: Arc<impl Fn(&str) -> (u16, String)>) {
    let mut buffer = [0; 16 << 10];
    let length = stream.read(&mut buffer).await.unwrap();
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let request = text.split(" HTTP/").next().unwrap();
    let (status, body) = if request.ends_with("/version") {
        (200, r#"{"Version": "28.0.0", "ApiVersion": "1.48"}"#.into())
    } else {
        answer(request)
    };
    let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
}
